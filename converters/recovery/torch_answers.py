"""The reference on another device than the CPU, and whether there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from graphprune.converters.torch_graph import to_torch

from graphprune.errors import ModelError, UsageError
from graphprune.model import Model


class TorchAsked:
    """Answers by the reference's graph in torch, on the device where they are needed.

    Args:
        model: who is asked.
        names: of tensors.
        device: as torch calls it.
    """

    def __init__(self, model: Model, names: Sequence[str], device: str) -> None:
        self._module = to_torch(model).float().to(device)
        self._names = names

    def __call__(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Tensors by name, without gradients."""
        with torch.no_grad():
            found: dict[str, Any] = self._module(feeds, fetch=self._names)
        return found


def require_device(device: str) -> None:
    """Is it there?

    Raises:
        UsageError: torch knows no such device.
        ModelError: it knows it, and there is none in this machine.
    """
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        message = f"there is no device '{device}'"
        raise UsageError(message, hint="cpu or cuda") from error
    if kind not in ("cpu", "cuda"):
        message = f"recovery does not run on '{device}'"
        raise UsageError(message, hint="cpu or cuda")
    if kind == "cuda" and not torch.cuda.is_available():
        message = "there is no CUDA device for torch"
        because = "this build of torch is for the CPU" if torch.version.cuda is None else "none was found"
        raise ModelError(message, because=because, hint="--device cpu")
