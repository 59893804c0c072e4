"""Every float16 number there is."""

from __future__ import annotations

import numpy as np
import pytest

from graphprune.halves import single

ALL = np.arange(1 << 16, dtype=np.uint16).view(np.float16)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype == np.float32 and np.array_equal(a.view(np.uint32), b.view(np.uint32))


def test_finite_numbers() -> None:
    finite = ALL[np.isfinite(ALL)]
    assert same_bits(single(finite), finite.astype(np.float32))
    square = finite[:63488].reshape(248, 256)
    assert same_bits(single(square.T), square.T.astype(np.float32))


def test_all_numbers() -> None:
    assert same_bits(single(ALL), ALL.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8])
def test_other_types_and_nothing(dtype: type) -> None:
    array = np.arange(6).astype(dtype)
    assert same_bits(single(array), array.astype(np.float32))
    assert single(np.zeros((0, 3), np.float16)).shape == (0, 3)
