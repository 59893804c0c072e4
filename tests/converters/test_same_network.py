"""The network written down in ONNX by hand: what every framework's test compares with."""

from __future__ import annotations

import numpy as np
from same_network import (
    assert_same,
    expected_dense,
    expected_image,
    image_model,
    images,
    record,
)


def test_the_dense_network() -> None:
    found = expected_dense()
    assert found.groups == {
        16: ("channels", True, ((6, 16), (12, 16))),
        12: ("channels", True, ((4, 12), (12, 16))),
    }
    assert 0 < len(found.kept[16]) < 16
    assert 0 < len(found.kept[12]) < 12
    assert np.abs(found.outputs).max() > 0.1


def test_the_convolutional_network() -> None:
    found = expected_image()
    by_hand = {
        10: ((3, 3, 3, 10), (3, 3, 10, 12), (3, 3, 10, 14), (3, 3, 10, 14)),
        14: ((3, 3, 10, 14), (3, 3, 10, 14)),
        12: ((3, 3, 10, 12), (4, 12)),
    }
    assert {size: shapes for size, (_, _, shapes) in found.groups.items()} == by_hand
    assert all(0 < len(keep) < size for size, keep in found.kept.items())


def test_a_folded_normalisation_changes_nothing() -> None:
    assert_same(record(image_model(folded=True), images()), expected_image())
