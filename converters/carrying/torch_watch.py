"""A run of a torch module under observation: where it stands, which attributes it reads, how it attends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from graphprune.converters.quiet import quiet
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Attention:
    """A call of ``scaled_dot_product_attention``.

    Attributes:
        caller: path of the innermost module that was running.
        arguments: of this module's own call: a tuple and a mapping.
        head_dim: size of a query.
        is_default: was the scale left to be computed from that size?
    """

    caller: str
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    head_dim: int
    is_default: bool


@dataclass
class Watch:
    """What was seen of a run.

    Attributes:
        result: of the module; None if it raised.
        error: what it raised.
        stack: paths of the modules that were running when it raised, outermost first.
        calls: calls of modules that came to their end.
        attentions: in the order of the calls.
        reads: path of a module -> names of the instance's attributes that its code read.
    """

    result: Any = None
    error: Exception | None = None
    stack: list[str] = field(default_factory=list)
    calls: int = 0
    attentions: list[Attention] = field(default_factory=list)
    reads: dict[str, set[str]] = field(default_factory=dict)


class _Attentions(TorchFunctionMode):  # type: ignore[misc]  # torch is absent where types are checked
    """Notes calls of the attention function, by whatever name it is called."""

    def __init__(self, watch: Watch, calls: list[tuple[str, Any]]) -> None:
        super().__init__()
        self._watch, self._calls = watch, calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention and self._calls:
            path, arguments = self._calls[-1]
            query = args[0] if args else kwargs["query"]
            scale = kwargs.get("scale", args[6] if len(args) > 6 else None)
            self._watch.attentions.append(Attention(path, arguments, query.shape[-1], scale is None))
        return func(*args, **kwargs)


def watch(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, reads: bool = False
) -> Watch:
    """Runs a module without gradients.

    Args:
        module: in evaluation mode.
        args: of its call.
        kwargs: of its call.
        reads: also note the attributes that are read.
    """
    found = Watch()
    paths = {id(m): path for path, m in module.named_modules()}
    calls: list[tuple[str, Any]] = []

    def enter(m: torch.nn.Module, args: Any, kwargs: Any) -> None:
        calls.append((paths[id(m)], (args, kwargs)))

    def leave(m: torch.nn.Module, args: Any, result: Any) -> None:
        calls.pop()
        found.calls += 1

    with contextlib.ExitStack() as stack:
        for m in module.modules():
            stack.callback(m.register_forward_pre_hook(enter, with_kwargs=True).remove)
            stack.callback(m.register_forward_hook(leave).remove)
        if reads:
            stack.enter_context(_reading(module, found.reads))
        stack.enter_context(quiet())
        stack.enter_context(torch.no_grad())
        stack.enter_context(_Attentions(found, calls))
        try:
            found.result = module(*args, **kwargs)
        except Exception as error:  # a module's code may raise anything
            found.error, found.stack = error, [path for path, _ in calls]
    return found


@contextlib.contextmanager
def _reading(module: torch.nn.Module, reads: dict[str, set[str]]) -> Iterator[None]:
    """For a while, the instances are of classes that note what is read."""
    changed: list[tuple[torch.nn.Module, type]] = []
    try:
        for path, m in module.named_modules():
            cls = type(m)
            with contextlib.suppress(TypeError):  # classes of a fixed layout stay as they are
                m.__class__ = _noting(cls, set(vars(m)), reads.setdefault(path, set()))
                changed.append((m, cls))
        yield
    finally:
        for m, cls in changed:
            m.__class__ = cls


def _noting(cls: Any, names: set[str], seen: set[str]) -> type:
    def get(self: Any, name: str) -> Any:
        if name in names:
            seen.add(name)
        return cls.__getattribute__(self, name)

    body = {"__getattribute__": get, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
    return type(cls.__name__, (cls,), body)
