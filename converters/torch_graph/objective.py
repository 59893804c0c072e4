"""What is differentiated: a loss on labels, or a random reading of the outputs where there are none.

A distance to the model's own outputs has no gradient at the model itself. A reading ``sum(s * outputs)`` with
random signs ``s`` has one: its squared derivative along a direction is, on average, the squared change of all
outputs along it (Hutchinson 1990). The signs of different samples are independent, so that whole batches can
be looked at. Outputs count alike: each is divided by its root mean square.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import torch
from graphprune.converters.recovery.labels import fitting_axes
from graphprune.converters.recovery.outputs import VALUES, kind_of
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
        self._labelled: str | None = None

    def __call__(self, outputs: Mapping[str, Tensor], labels: npt.NDArray[np.generic] | None) -> Tensor:
        """The loss of a batch: its mean cross-entropy, or the mean of its random readings.

        Args:
            outputs: by name.
            labels: whole numbers, one per row of one output, negative ones being none; or None. Where they
                fit several outputs, the first batch says which one holds classes.

        Raises:
            CalibrationError: the labels are classes of no output, or of several.
            ModelError: no output is a smooth function of a weight.
        """
        smooth = {name: t for name, t in outputs.items() if t.is_floating_point() and t.requires_grad}
        if not smooth:
            what = "no output of the model has a gradient"
            raise ModelError(
                what, because="none is a smooth function of a weight", hint="another --criterion"
            )
        if labels is not None:
            return self._cross_entropy(smooth, labels)
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

    def _cross_entropy(self, outputs: Mapping[str, Tensor], labels: npt.NDArray[np.generic]) -> Tensor:
        fitting = fitting_axes({name: tuple(t.shape) for name, t in outputs.items()}, labels)
        if self._labelled is None:
            self._labelled = _chosen(fitting, outputs, labels)
        if self._labelled not in fitting:
            _refuse("the labels are no classes of any output", outputs, labels)
        output, axis = outputs[self._labelled], fitting[self._labelled]
        rows = output.movedim(axis, -1).flatten(0, -2)
        classes = torch.from_numpy(labels.astype(np.int64)).reshape(-1).to(output.device)
        return F.nll_loss(_log_shares(rows), classes.clamp(min=-1), ignore_index=-1)


def _chosen(
    fitting: Mapping[str, int], outputs: Mapping[str, Tensor], labels: npt.NDArray[np.generic]
) -> str | None:
    """The output that labels belong to: of several, the one whose numbers guess classes."""
    names = list(fitting)
    if len(names) > 1:
        answers = {name: outputs[name].detach().float().cpu().numpy() for name in names}
        names = [name for name in names if kind_of(answers[name], "auto").name != VALUES]
        if len(names) != 1:
            _refuse("the labels may be classes of several outputs", outputs, labels)
    return names[0] if names else None


def _refuse(what: str, outputs: Mapping[str, Tensor], labels: npt.NDArray[np.generic]) -> NoReturn:
    given = f"labels {labels.dtype.name}{list(labels.shape)} up to {labels.max(initial=0)}"
    listed = ", ".join(f"'{name}' {list(t.shape)}" for name, t in outputs.items())
    raise CalibrationError(
        what,
        because=f"{given}; outputs {listed}",
        hint="whole numbers, one per row of one output (negative: none), or data without labels",
    )


def _log_shares(rows: Tensor) -> Tensor:
    """Logarithms of probabilities, from logits or from probabilities."""
    seen = rows.detach()
    if bool((seen >= 0).all()) and bool(((seen.sum(-1) - 1).abs() < _ROUNDING).all()):
        return rows.clamp(min=torch.finfo(rows.dtype).tiny).log()
    return F.log_softmax(rows, -1)
