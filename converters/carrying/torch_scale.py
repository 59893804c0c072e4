r"""Attention whose scale is computed from the size of a head.

``scaled_dot_product_attention`` divides scores by :math:`\sqrt d` of the queries it is given.  After a cut
from :math:`d` to :math:`d'` the scores must still be divided by :math:`\sqrt d`, so the layer that makes the
queries is multiplied by :math:`\sqrt{d'/d}`: the same function, up to rounding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from graphprune.converters.carrying.torch_watch import Attention
from torch import nn
from torch.overrides import TorchFunctionMode

from graphprune.errors import ModelError

Scaled = list[tuple[nn.Parameter, torch.Tensor]]


def keep_scales(module: nn.Module, before: list[Attention], after: list[Attention]) -> Scaled:
    """Rescales what makes the queries wherever the size of a head has changed.

    Args:
        module: cut.
        before: calls of the uncut module.
        after: calls of the cut one.

    Returns:
        the tensors that were changed, and what they were.

    Raises:
        ModelError: no layer was found that makes the queries and nothing else.
    """
    done: Scaled = []
    sizes = _by_caller(before)
    try:
        for path, found in _by_caller(after).items():
            known = sizes.get(path, [])
            if len(known) != len(found):
                continue  # another way through the code; the proof will tell
            for i, (old, new) in enumerate(zip(known, found, strict=True)):
                if old.is_default and new.is_default and old.head_dim != new.head_dim:
                    factor = (new.head_dim / old.head_dim) ** 0.5
                    done += _rescale(module.get_submodule(path), path, new, i, factor)
    except ModelError:
        undo(done)
        raise
    return done


def factor_of(parameter: nn.Parameter, old: torch.Tensor, otherwise: torch.Tensor) -> torch.Tensor:
    """What each number was multiplied with; a zero does not show it."""
    new = parameter.detach()
    factor = torch.where(old == 0, otherwise, new / old)
    rounding = max(1e-6, 4 * float(torch.finfo(old.dtype).eps))
    return torch.where((factor - 1).abs() <= rounding, torch.ones_like(factor), factor)


def multiply(factors: list[tuple[nn.Parameter, torch.Tensor]]) -> Scaled:
    """Multiplies, and returns what the tensors were."""
    done = [(parameter, parameter.detach().clone()) for parameter, _ in factors]
    with torch.no_grad():
        for parameter, factor in factors:
            parameter.mul_(factor)
    return done


def undo(scaled: Scaled) -> None:
    """Gives the tensors their old values."""
    with torch.no_grad():
        for parameter, old in reversed(scaled):
            parameter.copy_(old)


def _by_caller(found: list[Attention]) -> dict[str, list[Attention]]:
    grouped: dict[str, list[Attention]] = defaultdict(list)
    for attention in found:
        grouped[attention.caller].append(attention)
    return grouped


def _rescale(module: nn.Module, path: str, call: Attention, number: int, factor: float) -> Scaled:
    args, kwargs = call.arguments
    with torch.no_grad():
        q, k, v = _inputs(module, args, kwargs, number)
    wanted = (q * factor, k, v)
    for layer in module.modules():
        parameters = [p for p in layer.parameters(recurse=False) if p.is_floating_point()]
        masks = _makers(module, parameters, args, kwargs, number) if parameters else {}
        if not masks:
            continue
        done = [(p, p.detach().clone()) for p in masks]
        with torch.no_grad():
            for p, mask in masks.items():
                p.mul_(torch.where(mask, factor, 1.0).to(p.dtype))
            if all(_same(a, b) for a, b in zip(_inputs(module, args, kwargs, number), wanted, strict=True)):
                return done
        undo(done)
    what = f"the scale of the attention in '{path}' would change"
    because = "it is computed from the size of a head, and no layer makes the queries alone"
    hint = "leave head_dim out: kinds=['channels', 'heads', ...]"
    raise ModelError(what, because=because, hint=hint)


def _makers(
    module: nn.Module, parameters: list[nn.Parameter], args: Any, kwargs: Any, number: int
) -> dict[nn.Parameter, torch.Tensor]:
    """The rows of these parameters on which the queries depend."""
    before = [p.requires_grad for p in parameters]
    try:
        for p in parameters:
            p.requires_grad_(True)
        with torch.enable_grad():
            query = _inputs(module, args, kwargs, number)[0]
            if not query.requires_grad:
                return {}
            noise = torch.randn(query.shape, generator=torch.Generator().manual_seed(0)).to(query)
            gradients = torch.autograd.grad((query * noise).sum(), parameters, allow_unused=True)
    finally:
        for p, was in zip(parameters, before, strict=True):
            p.requires_grad_(was)
    width = next((len(p) for p in parameters if p.dim() == 1), 0)
    return {p: _rows(p, g, width) for p, g in zip(parameters, gradients, strict=True) if g is not None}


def _rows(parameter: nn.Parameter, gradient: torch.Tensor, width: int) -> torch.Tensor:
    """Whole rows: a column may be without a gradient because its input was 0 in this run."""
    axis = 0 if not width else next((a for a, n in enumerate(parameter.shape) if n == width), 0)
    if parameter.dim() > 1 and width and parameter.shape[-1] == width != parameter.shape[0]:
        axis = parameter.dim() - 1  # stored [in, out]
    others = [a for a in range(parameter.dim()) if a != axis]
    touched = (gradient != 0).any(dim=others) if others else gradient != 0
    shape = [-1 if a == axis else 1 for a in range(parameter.dim())]
    return touched.reshape(shape).expand(parameter.shape)


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    scale = float(b.abs().max()) if b.numel() else 0.0
    rounding = max(1e-4, 8 * float(torch.finfo(b.dtype).eps))
    return bool(a.shape == b.shape) and float((a - b).abs().max()) <= rounding * scale + 1e-12


class _Found(Exception):
    """The call that was looked for has been reached."""

    def __init__(self, tensors: tuple[torch.Tensor, ...]) -> None:
        super().__init__()
        self.tensors = tensors


class _Catch(TorchFunctionMode):  # type: ignore[misc]  # torch is absent where types are checked
    """Stops a run at one call of the attention function."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._left = number

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            if self._left == 0:
                raise _Found(tuple(_first_three(args, kwargs)))
            self._left -= 1
        return func(*args, **kwargs)


def _first_three(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[torch.Tensor]:
    for i, name in enumerate(("query", "key", "value")):
        yield args[i] if i < len(args) else kwargs[name]


def _inputs(module: nn.Module, args: Any, kwargs: Any, number: int) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values of a module's attention."""
    try:
        with _Catch(number):
            module(*args, **kwargs)
    except _Found as found:
        return found.tensors
    what = "a module did not attend as it did before"
    raise ModelError(what, where=type(module).__name__)
