"""The collector rests, and is left as it was."""

from __future__ import annotations

import gc

import pytest

from graphprune.garbage import no_collection


def fail_inside() -> None:
    with no_collection():
        assert not gc.isenabled()
        with no_collection():
            pass
        assert not gc.isenabled()
        raise KeyError


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_rests_inside_and_is_as_before_behind(on: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        with pytest.raises(KeyError):
            fail_inside()
        assert gc.isenabled() == on
    finally:
        (gc.enable if before else gc.disable)()
