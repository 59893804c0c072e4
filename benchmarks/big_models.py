"""A decoder of any size with its weights beside it, written without ever holding them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from scaling_models import Network, Places, Widths, decoder

#: Numbers that are drawn; weights are stretches of them, each from a random place on.
_POOL = (1 << 22) + 12289
#: Numbers that are written at a time.
_STRETCH = 1 << 20


def big_decoder(path: Path, size: float, widths: Widths) -> int:
    """Writes a float16 decoder of about ``size`` bytes, or of one layer, and returns its number of layers."""
    w = widths
    each = 2 * (2 * w.hidden**2 + 2 * w.hidden * w.kv_heads * w.head_dim + 3 * w.hidden * w.inner)
    layers = max(round((size - 4 * w.vocabulary * w.hidden) / each), 1)
    network = Network(f"{path.name}.data", np.float16, write_noise)
    decoder(path, 0, layers=layers, widths=widths, network=network)
    return layers


def write_noise(path: Path, places: Places) -> None:
    """Matrices of variance 1 / fan-in, vectors near 1."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(_POOL, np.float32)

    @lru_cache
    def pool(fan_in: int) -> np.ndarray:
        return (noise / np.sqrt(fan_in) if fan_in else 1 + noise / 10).astype(np.float16)

    with path.open("r+b") as file:
        for offset, shape in places.items():
            file.seek(offset)
            numbers = pool(shape[0] if len(shape) > 1 else 0)
            left = int(np.prod(shape))
            while left > 0:
                start = int(rng.integers(0, _POOL - _STRETCH))
                file.write(numbers[start : start + min(left, _STRETCH)].data)
                left -= _STRETCH
