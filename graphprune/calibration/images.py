"""Pictures that have the statistics of photographs, out of nothing.

A dead-leaves scene (Lee, Mumford and Huang, 2001): shapes of all sizes that lie over one another, as things
in the world do. Each has a colour, a gradient and a texture of its own. Baradad et al. ("Learning to
See by Looking at Noise", 2021) found that networks learn more from such pictures than from any other noise.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

#: Eigenvectors and standard deviations of colours in photographs: brightness, then blue against yellow,
#: then green against magenta.
_COLOURS = np.array([[0.577, 0.577, 0.577], [0.707, 0.0, -0.707], [0.408, -0.816, 0.408]], np.float32)
_SPREAD = np.array([1.0, 0.4, 0.16], np.float32)
_LEAVES = 12
_BLOCK_PIXELS = 1 << 21


def pictures(count: int, channels: int, height: int, width: int, rng: np.random.Generator) -> Floats:
    """Random pictures, ``[count, channels, height, width]``, of zero mean and unit variance per channel.

    Args:
        count: how many.
        channels: 1 (grey), 3 (colours) or 4 (colours and their brightness).
        height: in pixels.
        width: in pixels.
        rng: of everything random.
    """
    found = np.empty((count, channels, height, width), np.float32)
    step = max(1, _BLOCK_PIXELS // (height * width))
    for start in range(0, count, step):
        block = found[start : start + step]
        scene = _scene(len(block), height, width, rng)
        grey = scene.mean(axis=1, keepdims=True)
        block[:] = grey if channels == 1 else np.concatenate([scene, grey], axis=1)[:, :channels]
    axes = (0, 2, 3)
    found -= found.mean(axis=axes, keepdims=True, dtype=np.float64).astype(np.float32)
    found /= found.std(axis=axes, keepdims=True, dtype=np.float64).astype(np.float32) + np.float32(1e-6)
    return found


def _scene(count: int, height: int, width: int, rng: np.random.Generator) -> Floats:
    """Colours ``[count, 3, height, width]``."""
    y: Floats = np.linspace(-1, 1, height, dtype=np.float32)[:, None].repeat(width, axis=1)
    x: Floats = np.linspace(-1, 1, width, dtype=np.float32)[None].repeat(height, axis=0)
    theme = _colours(rng, count)
    scene = _filled(theme, count, y, x, rng)
    for leaf in range(_LEAVES):
        # From large to small: what is near the end lies on top.
        most = 0.75 * (1 - leaf / _LEAVES) ** 1.5 + 0.12
        mask = _shape(count, most, y, x, rng)[:, None]
        scene += mask * (_filled(theme, count, y, x, rng) - scene)
    # Light is stronger in some pictures than in others, and so is contrast.
    contrast = np.exp(0.3 * rng.standard_normal((count, 1, 1, 1)))
    return (contrast * scene).astype(np.float32)


def _colours(rng: np.random.Generator, count: int) -> Floats:
    drawn = rng.standard_normal((count, 3)).astype(np.float32) * _SPREAD
    return (drawn @ _COLOURS)[:, :, None, None].astype(np.float32)


def _filled(theme: Floats, count: int, y: Floats, x: Floats, rng: np.random.Generator) -> Floats:
    """A surface: its colour, shaded towards one side, with a texture."""
    colour = 0.35 * theme + 0.93 * _colours(rng, count)
    turn = rng.uniform(0, 2 * np.pi, (count, 1, 1)).astype(np.float32)
    slope = rng.exponential(0.35, (count, 1, 1)).astype(np.float32)
    shade = slope * (np.cos(turn) * x + np.sin(turn) * y)
    grain = _noise(count, y.shape, rng) * rng.exponential(0.2, (count, 1, 1)).astype(np.float32)
    return (colour + (shade + grain)[:, None]).astype(np.float32, copy=False)


def _noise(count: int, shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Noise of unit variance whose power falls as 1/f^a, with a drawn for each picture."""
    height, width = shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None] * width)
    frequency[0, 0] = np.inf
    slope = rng.uniform(1.0, 2.2, (count, 1, 1))
    amplitude = frequency**-slope
    white = rng.standard_normal((count, *frequency.shape)) + 1j * rng.standard_normal(
        (count, *frequency.shape)
    )
    noise = np.fft.irfft2(white * amplitude, s=shape, axes=(1, 2))
    noise /= noise.std(axis=(1, 2), keepdims=True) + 1e-9
    return noise.astype(np.float32)


def _shape(count: int, most: float, y: Floats, x: Floats, rng: np.random.Generator) -> Floats:
    """Soft masks ``[count, height, width]``: ellipses, bars and blobs, turned, with sharp or soft edges."""

    def draw(low: float, high: float) -> Floats:
        return rng.uniform(low, high, (count, 1, 1)).astype(np.float32)

    turn = draw(0, np.pi)
    dx, dy = x - draw(-0.7, 0.7), y - draw(-0.7, 0.7)
    u = np.cos(turn) * dx + np.sin(turn) * dy
    v = np.cos(turn) * dy - np.sin(turn) * dx
    size = most * draw(0.3, 1.0)
    ratio = np.exp(draw(-0.9, 0.9))
    u, v = np.abs(u) * ratio / size, np.abs(v) / (ratio * size)
    roundness = rng.choice(np.array([2.0, 2.0, 8.0], np.float32), (count, 1, 1))
    distance = (u**roundness + v**roundness) ** (1 / roundness)
    # Half of the things in the world have a left side like their right side.
    mirrored = rng.random((count, 1, 1)) < 0.5
    distance = np.where(mirrored, np.minimum(distance, distance[:, :, ::-1]), distance)
    sharp = size * x.shape[1] / 2 * draw(0.3, 1.0)
    mask: Floats = np.clip((1 - distance) * sharp + 0.5, 0, 1).astype(np.float32, copy=False)
    return mask
