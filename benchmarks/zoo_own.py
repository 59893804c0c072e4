"""What the networks of our own are made with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zoo_spec import BOTH, Exporter, Input, Spec

VOCABULARY = 300
IDS = {"ids": Input(("batch", "sequence"), VOCABULARY)}
SERIES = {"series": Input(("batch", "sequence", 12))}


def network(build: Callable[[Any], Any]) -> Callable[[], Any]:
    """Defers the import of torch, which `build` gets as its argument."""

    def made() -> Any:
        import torch

        return build(torch)

    return made


def module(torch: Any, forward: Callable[..., Any], **parts: Any) -> Any:
    """A module of these parts, whose forward gets the parts first."""

    class Made(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            for name, part in parts.items():
                setattr(self, name, part)

        def forward(self, *inputs: Any) -> Any:
            return forward(self, *inputs)

    return Made()


def conv_bn(torch: Any, i: int, o: int, k: int = 3, stride: int = 1, groups: int = 1) -> Any:
    nn = torch.nn
    conv = nn.Conv2d(i, o, k, stride, k // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(o), nn.SiLU())


def own(
    name: str,
    build: Callable[[Any], Any],
    inputs: dict[str, Input],
    exporters: tuple[Exporter, ...] = BOTH,
    **options: Any,
) -> Spec:
    return Spec(f"own_{name}", network(build), inputs, exporters, **options)
