"""How far the pruned model's answers are from the reference's, as a number with a gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from graphprune.converters.recovery.outputs import LOGITS, PROBABILITIES, Kind
from torch import Tensor
from torch.nn import functional

#: Against the logarithm of a probability of zero.
_TINY = 1e-8


@dataclass(frozen=True)
class Loss:
    """The loss of a batch.

    Everything is compared by its squared error, relative to how much the reference's numbers vary, and logits
    as distributions too, softened by a temperature (Hinton et al. 2015, arXiv:1503.02531). Positions that are
    padding don't count.

    Attributes:
        outputs: kinds of the outputs.
        hidden: kinds of the tensors in between.
        temperature: of the softmax.
        hidden_weight: of all tensors in between together.
        labelled: output and axis of classes that labels are for.
        label_weight: share of the labels' cross-entropy in the loss.
    """

    outputs: Mapping[str, Kind]
    hidden: Mapping[str, Kind]
    temperature: float
    hidden_weight: float
    labelled: tuple[str, int] | None
    label_weight: float

    def __call__(
        self,
        found: Mapping[str, Tensor],
        expected: Mapping[str, Tensor],
        mask: Tensor | None,
        labels: Tensor | None,
    ) -> Tensor:
        """A scalar.

        Args:
            found: the pruned model's tensors.
            expected: the reference's.
            mask: ``[samples, positions]``, False at padding.
            labels: classes; negative ones are none.
        """
        terms = [self._distance(n, kind, found[n], expected[n], mask) for n, kind in self.outputs.items()]
        total = torch.stack(terms).mean()
        if labels is not None and self.labelled is not None and self.label_weight:
            name, axis = self.labelled
            logits = found[name].float().movedim(axis, 1)
            known = torch.where(labels >= 0, labels, -100)
            if bool((labels >= 0).any()):
                truth = functional.cross_entropy(logits, known, ignore_index=-100)
                total = (1 - self.label_weight) * total + self.label_weight * truth
        if self.hidden:
            terms = [self._squares(kind, found[n], expected[n], mask) for n, kind in self.hidden.items()]
            total = total + self.hidden_weight * torch.stack(terms).mean()
        return total

    def _distance(
        self, name: str, kind: Kind, found: Tensor, expected: Tensor, mask: Tensor | None
    ) -> Tensor:
        if kind.name == LOGITS:
            t = self.temperature
            ours = functional.log_softmax(found.float() / t, dim=kind.axis)
            theirs = functional.log_softmax(expected.float() / t, dim=kind.axis)
            rows = t * t * (theirs.exp() * (theirs - ours)).sum(kind.axis)
            # Alone it would let all logits of a row move together.
            return _mean(rows, mask) + self._squares(kind, found, expected, mask)
        if kind.name == PROBABILITIES:
            ours = found.float().clamp_min(_TINY).log()
            theirs = expected.float().clamp_min(_TINY)
            return _mean((theirs * (theirs.log() - ours)).sum(kind.axis), mask)
        return self._squares(kind, found, expected, mask)

    @staticmethod
    def _squares(kind: Kind, found: Tensor, expected: Tensor, mask: Tensor | None) -> Tensor:
        return _mean((found.float() - expected.float()) ** 2, mask) / kind.scale


def _mean(numbers: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None or numbers.shape[: mask.ndim] != mask.shape:
        return numbers.mean()
    return numbers[mask].mean()
