"""What is differentiated: a loss on labels, or a random reading of the outputs where there are none.

A distance to the model's own outputs has no gradient at the model itself. A reading ``sum(s * outputs)`` with
random signs ``s`` has one: its squared derivative along a direction is, on average, the squared change of all
outputs along it (Hutchinson 1990). The signs of different samples are independent, so that whole batches can
be looked at. Outputs count alike: each is divided by its root mean square.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from graphprune.errors import CalibrationError, ModelError

#: Rows of probabilities add up to 1 within this.
_ROUNDING = 1e-3


class Objective:
    """A number made of a model's outputs.

    Args:
        seed: of the random signs.
    """

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._scales: dict[str, float] = {}

    def __call__(self, outputs: Mapping[str, Tensor], labels: npt.NDArray[np.generic] | None) -> Tensor:
        """The loss of a batch: its mean cross-entropy, or the mean of its random readings.

        Args:
            outputs: by name.
            labels: whole numbers, one per row of some output's last axis, negative ones being none; or None.

        Raises:
            CalibrationError: the labels are no classes of any output.
            ModelError: no output is a smooth function of a weight.
        """
        smooth = {name: t for name, t in outputs.items() if t.is_floating_point() and t.requires_grad}
        if not smooth:
            what = "no output of the model has a gradient"
            raise ModelError(
                what, because="none is a smooth function of a weight", hint="another --criterion"
            )
        if labels is not None:
            return _cross_entropy(smooth, labels)
        return torch.stack([self._reading(name, t) for name, t in smooth.items()]).sum()

    def _reading(self, name: str, output: Tensor) -> Tensor:
        """``sum(s * output)``, in units of its size, per sample."""
        finite = output.detach().isfinite()
        if name not in self._scales:
            power = output.detach()[finite].double().square().mean()
            self._scales[name] = float(power.sqrt()) or 1.0
        signs = torch.randint(0, 2, output.shape, generator=self._generator).to(output) * 2.0 - 1.0
        read = torch.where(finite, output, torch.zeros_like(output)) * signs
        return read.sum() / (self._scales[name] * output.numel() ** 0.5)


def _cross_entropy(outputs: Mapping[str, Tensor], labels: npt.NDArray[np.generic]) -> Tensor:
    if labels.dtype.kind in "iu":
        for output in outputs.values():
            for axis in (output.ndim - 1, 1):
                rest = (*output.shape[:axis], *output.shape[axis + 1 :])
                if output.ndim > 1 and rest == labels.shape and labels.max(initial=0) < output.shape[axis]:
                    rows = output.movedim(axis, -1).flatten(0, -2)
                    classes = torch.from_numpy(labels.astype(np.int64)).reshape(-1).to(output.device)
                    classes = classes.clamp(min=-1)
                    return F.nll_loss(_log_shares(rows), classes, ignore_index=-1)
    what = "the labels are no classes of any output"
    given = f"labels {labels.dtype.name}{list(labels.shape)} up to {labels.max(initial=0)}"
    listed = ", ".join(f"'{name}' {list(t.shape)}" for name, t in outputs.items())
    raise CalibrationError(
        what,
        because=f"{given}; outputs {listed}",
        hint="whole numbers, one per row of an output (negative: none), or data without labels",
    )


def _log_shares(rows: Tensor) -> Tensor:
    """Logarithms of probabilities, from logits or from probabilities."""
    seen = rows.detach()
    if bool((seen >= 0).all()) and bool(((seen.sum(-1) - 1).abs() < _ROUNDING).all()):
        return rows.clamp(min=torch.finfo(rows.dtype).tiny).log()
    return F.log_softmax(rows, -1)
