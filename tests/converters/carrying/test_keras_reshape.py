"""Targets of Reshapes behind a cut; needs no Keras."""

from __future__ import annotations

import pytest
from graphprune.converters.carrying.keras_reshape import reshaped

from graphprune.errors import ModelError

LEFT = {4: {3}, 6: {5}, 12: {7}}


@pytest.mark.parametrize(
    ("target", "before", "after", "wanted"),
    [
        ((1, 1, 12), (12,), (7,), (1, 1, 7)),
        ((64, 12), (8, 8, 12), (8, 8, 7), (64, 7)),
        ((-1, 12), (8, 8, 12), (8, 8, 7), (-1, 7)),
        ((9, 24), (9, 4, 6), (9, 3, 6), (9, 18)),
        ((9, 4, 6), (9, 24), (9, 18), (9, 3, 6)),
        ((9, 4, 6), (9, 24), (9, 15), (9, 3, 5)),
        ((-1,), (8, 8, 12), (8, 8, 7), (-1,)),
        ((8, 8, 12), (8, 8, 12), (8, 8, 12), (8, 8, 12)),
    ],
)
def test_targets(
    target: tuple[int, ...], before: tuple[int, ...], after: tuple[int, ...], wanted: tuple[int, ...]
) -> None:
    assert reshaped(target, before, after, LEFT, "r") == wanted


@pytest.mark.parametrize(
    ("target", "before", "after", "text"),
    [
        ((4, 6), (24,), (23,), "no target fits its new input"),
        ((6, 6), (36,), (30,), "several targets fit"),
        ((4, 6), (None, 6), (None, 5), "its input has free sizes"),
    ],
)
def test_unclear_targets(
    target: tuple[int, ...], before: tuple[int, ...], after: tuple[int, ...], text: str
) -> None:
    with pytest.raises(ModelError, match=text):
        reshaped(target, before, after, LEFT, "r")
