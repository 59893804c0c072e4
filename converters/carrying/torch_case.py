"""A module is cut, mended and proven."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from graphprune.converters.carrying.source_cut import SourceCut
from graphprune.converters.carrying.torch_arrays import slots
from graphprune.converters.carrying.torch_attributes import choices
from graphprune.converters.carrying.torch_calls import Call
from graphprune.converters.carrying.torch_cut import cut_tensors
from graphprune.converters.carrying.torch_facts import Sizes
from graphprune.converters.carrying.torch_layers import Layer, mend_layer
from graphprune.converters.carrying.torch_noise import Noise
from graphprune.converters.carrying.torch_proof import Reference, distance
from graphprune.converters.carrying.torch_settle import Again, Settling
from graphprune.converters.carrying.torch_watch import Watch, watch
from graphprune.converters.carrying.transformers_config import Changes


@dataclass(frozen=True)
class Carried:
    """A module that has been cut.

    Attributes:
        module: the same object.
        rescaled: names of tensors that were multiplied.
        untied: names of tensors that were tied.
        error: distance from the pruned model.
        changes: sizes before -> sizes after.
    """

    module: torch.nn.Module
    rescaled: tuple[str, ...]
    untied: tuple[str, ...]
    error: float
    changes: Changes


@dataclass(frozen=True)
class Case:
    """What a carried module has to do.

    Attributes:
        before: a run of the uncut module.
        call: of the carried one.
        expected: outputs of the pruned model.
        wanted: where they are among the module's.
        noise: random weights, with which the same is asked; None if there are none.
    """

    before: Watch
    call: Call
    expected: Mapping[str, Any]
    wanted: Reference
    noise: Noise | None = None

    def error(self, module: torch.nn.Module) -> float:
        """How far a module is from the pruned model; infinite if it does not run."""
        seen = watch(module, self.call.args, self.call.kwargs)
        return float("inf") if seen.error else distance(self.expected, seen.result, self.wanted)

    def carried(self, module: torch.nn.Module, cut: SourceCut, noisy: SourceCut | None = None) -> Carried:
        """Cuts a module in place.

        Args:
            module: uncut.
            cut: of its weights.
            noisy: of the random weights.

        Raises:
            ModelError: the module can't have the new sizes.
            ValidationError: it computes something else.
        """
        shapes = {slot.name: tuple(slot.tensor.shape) for slot in slots(module)}
        untied = cut_tensors(module, cut)
        settled = {path: mend_layer(m, Layer(path, cut, shapes)) for path, m in module.named_modules()}
        sizes = Sizes(cut, shapes, {slot.name: tuple(slot.tensor.shape) for slot in slots(module)})
        settling = Settling(
            module,
            choices(module, sizes, settled, self.before.reads or None),
            self.before.attentions,
            lambda: watch(module, self.call.args, self.call.kwargs),
            lambda result: distance(self.expected, result, self.wanted),
            self.wanted.tolerance,
            self._again(noisy),
        )
        error = settling.settle()
        scaled = {id(parameter) for parameter, _ in settling.scaled}
        rescaled = tuple(slot.name for slot in slots(module) if id(slot.tensor) in scaled)
        return Carried(module, rescaled, untied, error, sizes.changes())

    def _again(self, noisy: SourceCut | None) -> Again | None:
        noise = self.noise
        if noise is None or noisy is None:
            return None
        compare = lambda result: distance(noise.expected, result, self.wanted)  # noqa: E731
        return Again(noise.tensors(noisy), compare, noise.tolerance)
