"""Weights times gradients of a model, batch by batch, as arrays by parameter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch
from graphprune.converters.torch_graph.call import Call
from graphprune.converters.torch_graph.module import GraphModule
from graphprune.converters.torch_graph.objective import Objective
from graphprune.converters.torch_graph.weights import LARGEST
from torch import Tensor

from graphprune.calibration.samples import Samples
from graphprune.errors import ModelError
from graphprune.model import Model
from graphprune.progress import Progress

#: By key of the module's parameters.
Arrays = dict[str, npt.NDArray[np.floating[npt.NBitBase]]]
Array = npt.NDArray[np.generic]


class Gradients:
    """Of a model on samples.

    Args:
        model: as it is; numbers in half precision are computed with in single precision.
        samples: with labels, or without (see :mod:`graphprune.converters.torch_graph.objective`).
        seed: of everything random.
        progress: is told how far it is.

    Raises:
        ModelError: the model holds an operator that torch can't run here, or no weights.
    """

    def __init__(self, model: Model, samples: Samples, seed: int, progress: Progress) -> None:
        self.module = float_module(model)
        self._samples, self._seed, self._progress = samples, seed, progress

    def products(self, size: int, most: int | None = None) -> Iterator[Arrays]:
        """``w * dL/dw`` of each batch of ``size`` samples, or of the first ``most`` samples only.

        Raises:
            ModelError: a gradient is not finite.
        """
        keys, weights = self._weights()
        for loss in self._losses(size, most):
            found = torch.autograd.grad(loss, weights, allow_unused=True)
            yield _arrays(keys, weights, found)

    def hessian_products(self, size: int) -> Iterator[Arrays]:
        """``w * Hg`` of each batch: the Hessian of its loss times a gradient.

        With labels the gradient is that of all samples (Wang et al. 2020); without them it is the batch's
        own, since random readings of different batches have nothing to do with each other.
        """
        keys, weights = self._weights()
        total = self._total(weights, size) if self._samples.labels is not None else None
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):  # has second derivatives
            for loss in self._losses(size):
                first = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
                along = [None if g is None else g.detach() for g in first] if total is None else total
                pairs = [
                    (g * v).sum()
                    for g, v in zip(first, along, strict=True)
                    if g is not None and v is not None and g.requires_grad
                ]
                second: list[Tensor | None] = [None] * len(weights)
                if pairs:
                    second = list(torch.autograd.grad(sum(pairs[1:], pairs[0]), weights, allow_unused=True))
                yield _arrays(keys, weights, second)

    def _total(self, weights: list[Tensor], size: int) -> list[Tensor | None]:
        total: list[Tensor | None] = [None] * len(weights)
        for loss in self._losses(size):
            for i, g in enumerate(torch.autograd.grad(loss, weights, allow_unused=True)):
                if g is not None:
                    before = total[i]
                    total[i] = g if before is None else before + g
        return total

    def _losses(self, size: int, most: int | None = None) -> Iterator[Tensor]:
        objective = Objective(self._seed)
        count = min(len(self._samples), most or len(self._samples))
        done = 0
        for feeds in self._samples.batches(size):
            rows = 1 if self._samples.whole else _rows(feeds, self._samples)
            labels = self._samples.labels
            part = None if labels is None else np.asarray(labels[done : done + rows])
            if self._samples.whole and part is not None:
                part = part[0]
            if done >= count:
                return
            done += rows
            self._progress("differentiating", min(done, count), count)
            yield objective(self.module(feeds), part)

    def _weights(self) -> tuple[list[str], list[Tensor]]:
        found = self.module.initializers
        return list(found), list(found.values())


def synaptic_flow(model: Model, feeds: Mapping[str, Array]) -> tuple[GraphModule, Arrays]:
    """``|w * dR/dw|``, with R the sum of the outputs of the network of absolute weights at inputs of ones.

    A softmax would let nothing through: its numbers add up to 1, and inputs of ones give it equal ones. It
    becomes a mean of what is not masked.

    Args:
        model: as it is; computed with in double precision, since R grows with each layer.
        feeds: shapes of the floating inputs, which become ones; integers stay what they are.

    Raises:
        ModelError: the flow is not finite.
    """
    module = float_module(model).double()
    for step in module.steps():
        if step.call.op_type in ("LogSoftmax", "Softmax"):
            step.function = _linear
    with torch.no_grad():
        for parameter in module.initializers.values():
            parameter.abs_()
    ones = {name: np.ones_like(a) if a.dtype.kind == "f" else a for name, a in feeds.items()}
    outputs = [t for t in module(ones).values() if t.is_floating_point() and t.requires_grad]
    if not outputs:
        what = "no output of the model has a gradient"
        raise ModelError(what, because="none is a smooth function of a weight", hint="another --criterion")
    total = torch.stack([t[t.detach().isfinite()].sum() for t in outputs]).sum()
    keys, weights = list(module.initializers), list(module.initializers.values())
    flow = _arrays(keys, weights, torch.autograd.grad(total, weights, allow_unused=True))
    return module, {key: np.abs(array) for key, array in flow.items()}


def _linear(call: Call, x: Tensor) -> Tensor:
    """In place of a softmax."""
    return torch.where(x < -LARGEST, torch.zeros_like(x), x) / x.shape[call.get("axis", -1)]


def float_module(model: Model) -> GraphModule:
    """The model as a module that computes in single precision at least.

    Raises:
        ModelError: it has no weights, or an operator that torch can't run here.
    """
    module = GraphModule(model)
    if not module.weights:
        what = "the model has no weights to differentiate by"
        raise ModelError(what, hint="another --criterion")
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in module.initializers.values()):
        module.float()
    return module


def _rows(feeds: Mapping[str, Array], samples: Samples) -> int:
    return next((len(a) for name, a in feeds.items() if name not in samples.shared), 1)


def _arrays(keys: list[str], weights: list[Tensor], gradients: object) -> Arrays:
    found = {}
    for key, weight, gradient in zip(keys, weights, gradients, strict=True):  # type: ignore[call-overload]
        if gradient is None:
            continue
        product = (weight.detach() * gradient).numpy()
        if not np.isfinite(product).all():
            what = f"the gradient of '{key}' is not finite"
            raise ModelError(
                what, because="no importance can be computed from it", hint="another --criterion"
            )
        found[key] = product
    return found
