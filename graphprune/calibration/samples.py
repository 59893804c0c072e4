"""Calibration samples: arrays named as a model's inputs, checked against it before anything runs.

An array has its input's rank, and its first axis counts the samples. `SampleAxes` says which inputs count
samples; the others are shared, and their array has the input's own shape. An array with one axis more than
its input holds one whole input per sample (``[samples]`` for a scalar, ``[samples, time, 1, features]`` where
time comes first); the samples then run one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from graphprune.calibration.archives import read_archive
from graphprune.calibration.input_checks import described, fitted, require_axes, require_known
from graphprune.calibration.sample_axes import SampleAxes
from graphprune.calibration.sample_axes import batch_size as batch_size
from graphprune.errors import CalibrationError, UsageError
from graphprune.model import Model

Array = npt.NDArray[np.generic]
_LABELS = "labels"


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples that a model takes.

    Attributes:
        feeds: arrays by input name; the first axis counts samples, except in those that are shared.
        labels: one entry per sample, if there are any.
        shared: names of the arrays that every batch gets as they are.
        size: how many samples a batch must have; None if any number will do.
        whole: every entry along the first axis is a whole input, without an axis of samples.
    """

    feeds: Mapping[str, Array]
    labels: Array | None = None
    shared: frozenset[str] = frozenset()
    size: int | None = None
    whole: bool = False

    def __len__(self) -> int:
        return next((len(a) for name, a in self.feeds.items() if name not in self.shared), 1)

    def batches(self, size: int) -> Iterator[dict[str, Array]]:
        """Feeds for one run each, of ``size`` samples, or of as many as the model insists on.

        The last one may be smaller, unless the model insists.
        """
        step = 1 if self.whole else self.size or size
        for start in range(0, len(self), step):
            where = start if self.whole else slice(start, start + step)
            yield {name: a if name in self.shared else np.asarray(a[where]) for name, a in self.feeds.items()}

    def pick(self, indices: npt.NDArray[np.integer[Any]]) -> Samples:
        """These samples, in this order."""
        return self._each(lambda array: array[indices])

    def take(self, count: int) -> Samples:
        """The first ``count`` samples: fewer if there are not so many, or if batches have a fixed size."""
        kept = self._whole_batches(min(count, len(self)))
        return self._each(lambda array: array[:kept])

    def shuffled(self, seed: int) -> Samples:
        """All samples in random order."""
        return self.pick(np.random.default_rng(seed).permutation(len(self)))

    def split(self, fraction: float, seed: int) -> tuple[Samples, Samples]:
        """Two random parts, the first with this fraction of the samples; neither is empty.

        Raises:
            CalibrationError: there is one batch only.
        """
        least = self.size or 1
        if len(self) < 2 * least:
            message = f"{len(self)} calibration samples can't be split"
            because = f"the model takes {least} at a time" if least > 1 else None
            raise CalibrationError(message, because=because, hint=f"at least {2 * least} samples")
        order = np.random.default_rng(seed).permutation(len(self))
        cut = round(fraction * len(self) / least) * least
        cut = min(max(cut, least), len(self) - least)
        return self.pick(order[:cut]), self.pick(order[cut:])

    def _whole_batches(self, count: int) -> int:
        least = self.size or 1
        return max(least, count // least * least)

    def _each(self, function: Callable[[Array], Array]) -> Samples:
        feeds = {name: a if name in self.shared else function(a) for name, a in self.feeds.items()}
        labels = None if self.labels is None else function(self.labels)
        return Samples(feeds, labels, self.shared, self.size, self.whole)


#: What :func:`load_samples` takes.
SampleSource: TypeAlias = "str | Path | Mapping[str, Any] | Iterable[Mapping[str, Any]] | Samples"


def load_samples(source: SampleSource, model: Model, limit: int | None = None) -> Samples:
    """Read samples and check that the model takes them.

    Args:
        source: an ``.npz``, arrays by name, batches of arrays by name, or samples. An array ``labels``
            is kept aside unless the model has an input of that name.
        model: whose inputs they are.
        limit: use the first so many.

    Raises:
        CalibrationError: the data can't be read, or do not fit the model.
        UsageError: the limit is no number of samples.
    """
    if limit is not None and limit < 1:
        message = f"{limit} calibration samples are none"
        raise UsageError(message, hint="at least one, better a few hundred")
    axes = SampleAxes.of(model)
    most = None if limit is None else max(limit, axes.size or 1)
    if isinstance(source, (str, Path)):
        where = str(source)
        arrays = read_archive(Path(source), most, axes.counted | {_LABELS})
    elif isinstance(source, Samples):
        where = "the samples"
        arrays = dict(source.feeds)
        arrays |= {} if source.labels is None else {_LABELS: source.labels}
    elif isinstance(source, Mapping):
        where = "the arrays"
        arrays = {str(name): _array(name, data) for name, data in source.items()}
    else:
        where = "the batches"
        arrays = _joined(source, axes, most)
    labels = None if _LABELS in axes.inputs else arrays.pop(_LABELS, None)
    samples = _checked(arrays, axes, where)
    if labels is not None and (not labels.ndim or len(labels) < len(samples)):
        found = len(labels) if labels.ndim else 0
        message = f"there are {found} labels for {len(samples)} calibration samples"
        raise CalibrationError(message, where=where, hint="one label per sample, or none at all")
    if labels is not None:
        samples = Samples(samples.feeds, labels[: len(samples)], samples.shared, samples.size, samples.whole)
    return samples.take(len(samples) if limit is None else limit)


def _checked(arrays: Mapping[str, Array], axes: SampleAxes, where: str) -> Samples:
    require_known(arrays, axes.inputs, where)
    ranks = {n: len(v.shape) for n, v in axes.inputs.items() if v.shape is not None}
    stacked = {name for name, rank in ranks.items() if arrays[name].ndim == rank + 1}
    shared = frozenset(axes.inputs) - axes.counted - stacked
    counted = [name for name in axes.inputs if name not in shared]
    for name in counted:
        if not arrays[name].ndim:
            message = f"calibration input '{name}' is one number instead of an array"
            raise CalibrationError(message, where=where, hint="its first axis counts the samples")
    _require_one_count({name: len(arrays[name]) for name in counted}, where)
    feeds, symbols = {}, dict[str, tuple[str, int]]()
    for name, value in axes.inputs.items():
        array = arrays[name]
        if stacked and name in axes.counted - stacked:
            if axes.size not in (None, 1):
                message = f"calibration input '{name}' is not one whole input per sample"
                because = f"{', '.join(sorted(stacked))} hold these, and the model takes {described(value)}"
                hint = f"an array with an axis of samples before {described(value)}"
                raise CalibrationError(message, where=where, because=because, hint=hint)
            array = array[:, None]
        as_fed = array.shape[1:] if stacked and name not in shared else array.shape
        counts = name in axes.counted and name not in stacked
        require_axes(value, as_fed, symbols, where, skip=int(counts))
        feeds[name] = fitted(value, array, where)
    size = None if stacked else axes.size
    samples = Samples(feeds, None, shared, size, bool(stacked))
    if size is not None and len(samples) < size:
        message = f"there are {len(samples)} calibration samples"
        because = f"the model takes exactly {size} at a time"
        raise CalibrationError(message, where=where, because=because, hint=f"at least {size} samples")
    return samples.take(len(samples))


def _require_one_count(counts: Mapping[str, int], where: str) -> None:
    if len(set(counts.values())) > 1:
        message = "the calibration inputs have different numbers of samples"
        because = ", ".join(f"'{name}' has {count}" for name, count in counts.items())
        raise CalibrationError(message, where=where, because=because, hint="one row per sample in each")
    if 0 in counts.values():
        message = "there are no calibration samples"
        because = "the first axis counts the samples, and it is 0"
        raise CalibrationError(
            message, where=where, because=because, hint="at least one, better a few hundred"
        )


def _array(name: object, data: Any) -> Array:
    try:
        return np.asarray(data)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged lists, tensors on a device
        message = f"calibration input '{name}' is no array"
        because = " ".join(str(error).split())[:200]
        raise CalibrationError(message, because=because, hint="a numpy array") from error


def _joined(batches: Iterable[Mapping[str, Any]], axes: SampleAxes, limit: int | None) -> dict[str, Array]:
    """Batches one behind the other, no more than are needed."""
    rows: dict[str, list[Array]] = {}
    count = 0
    for number, batch in enumerate(batches):
        if not isinstance(batch, Mapping):
            message = f"calibration batch {number} is a {type(batch).__name__}"
            raise CalibrationError(message, hint="arrays by input name, as in {'image': array}")
        if number and rows.keys() != batch.keys():
            message = f"calibration batch {number} has other arrays than batch 0"
            because = f"{', '.join(map(str, batch))} instead of {', '.join(rows)}"
            raise CalibrationError(message, because=because, hint="the same names in every batch")
        for name, data in batch.items():
            rows.setdefault(str(name), []).append(_array(name, data))
        # A model without an axis of samples gets one whole input per batch.
        heights = [len(rows[n][-1]) for n in rows if n in axes.counted and rows[n][-1].ndim]
        count += min(heights, default=1)
        if limit is not None and count >= limit:
            break
    if not rows:
        message = "there are no calibration samples"
        raise CalibrationError(message, because="the batches end before the first one")
    return {name: _one(name, pieces, axes) for name, pieces in rows.items()}


def _one(name: str, pieces: list[Array], axes: SampleAxes) -> Array:
    shapes = list(dict.fromkeys(piece.shape[1:] for piece in pieces))
    if name in axes.counted or (name == _LABELS and pieces[0].ndim):
        if len(shapes) == 1 and all(piece.ndim for piece in pieces):
            return np.concatenate(pieces)
    elif not axes.counted and len({piece.shape for piece in pieces}) == 1:
        return np.stack(pieces)
    elif all(np.array_equal(piece, pieces[0]) for piece in pieces):
        return pieces[0]
    else:
        message = f"calibration input '{name}' is not the same in every batch"
        because = "its first axis does not count samples"
        hint = "an array with an axis of samples before its own: one whole input per sample"
        raise CalibrationError(message, because=because, hint=hint)
    message = f"the batches of calibration input '{name}' can't be joined"
    because = f"samples have the shapes {', '.join(str(list(shape)) for shape in shapes[:3])}"
    raise CalibrationError(message, because=because, hint="pad them to one size")
