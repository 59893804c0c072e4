"""Files of weights that torch saved: a state dict, alone or inside a larger checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
from graphprune.converters.parity import first_line
from graphprune.converters.quiet import quiet
from graphprune.converters.source import importable
from graphprune.converters.torch import require_torch

from graphprune.errors import ModelError

Array = npt.NDArray[Any]
Keys = tuple[Any, ...]


class TorchFile:
    """A checkpoint: nested containers with tensors somewhere in them.

    Args:
        path: the file.
        trust: load objects of any class in it, which can run code; without it nothing is run.

    Attributes:
        arrays: tensors by the last of their keys; by all their keys where that is not enough.

    Raises:
        ModelError: the file can't be read like that, or holds no tensors.
    """

    file_names: tuple[str, ...] = ()

    def __init__(self, path: Path, *, trust: bool = False) -> None:
        torch = require_torch()
        if not path.is_file():
            what = f"there is no file '{path}'"
            raise ModelError(what)
        try:
            with quiet(), importable(Path.cwd()):
                self._content = torch.load(path, weights_only=not trust, map_location="cpu")
        except Exception as error:  # unpickling, zip and TorchScript errors
            what = f"cannot read the weights in '{path}'"
            hint = "torch.save(module.state_dict(), FILE)"
            if not trust:
                hint += "; --trust for a pickled module, or other objects in it, which may run code"
            raise ModelError(what, because=first_line(error), hint=hint) from error
        self._paths = _names(dict(_tensors(self._content, ())))
        if not self._paths:
            what = f"'{path}' holds no tensors"
            raise ModelError(what)

    @property
    def arrays(self) -> dict[str, Array]:
        """All tensors as arrays that share their memory."""
        from graphprune.converters.carrying.torch_arrays import to_numpy

        return {name: to_numpy(tensor) for name, (_, tensor) in self._paths.items()}

    def container(self, name: str) -> str:
        """Where a tensor stands: ``optimizer``, ``state_dict``; empty at the top."""
        path, _ = self._paths[name]
        return str(path[0]) if len(path) > 1 else ""

    def write(
        self, path: Path, new: Mapping[str, Array | None], added: Mapping[str, tuple[str, Array]]
    ) -> None:
        """Writes the checkpoint with other arrays.

        Args:
            path: the file.
            new: name -> what it becomes; None: it goes.
            added: new name -> an array beside which it stands, and its numbers.
        """
        import torch
        from graphprune.converters.carrying.torch_arrays import to_tensor

        made: dict[Any, Any] = {}  # a tie stays one tensor
        changes: dict[Keys, Any] = {}
        for name, array in new.items():
            path_in, tensor = self._paths[name]
            key = tensor.data_ptr(), tensor.shape
            if array is not None and key not in made:
                made[key] = _like(to_tensor(array, tensor), tensor, torch)
            changes[path_in] = None if array is None else made[key]
        for name, (beside, array) in added.items():
            path_in, tensor = self._paths[beside]
            last = name if path_in[-1] == beside else name.removeprefix(beside.removesuffix(str(path_in[-1])))
            changes[(*path_in[:-1], last)] = _like(to_tensor(array, tensor), tensor, torch)
        torch.save(_rebuilt(self._content, (), changes), path)


def _like(new: Any, old: Any, torch: Any) -> Any:
    return torch.nn.Parameter(new, old.requires_grad) if isinstance(old, torch.nn.Parameter) else new


def _tensors(content: Any, path: Keys) -> Iterator[tuple[Keys, Any]]:
    import torch

    if isinstance(content, torch.Tensor):
        if content.layout == torch.strided and not content.is_quantized:
            yield path, content
    elif isinstance(content, Mapping):
        for key, each in content.items():
            yield from _tensors(each, (*path, key))
    elif isinstance(content, (list, tuple)):
        for i, each in enumerate(content):
            yield from _tensors(each, (*path, i))


def _names(tensors: dict[Keys, Any]) -> dict[str, tuple[Keys, Any]]:
    last = [str(path[-1]) for path in tensors if path]
    found = {}
    for path, tensor in tensors.items():
        if path:
            alone = len(path) == 1 or (isinstance(path[-1], str) and last.count(path[-1]) == 1)
            name = str(path[-1]) if alone else "/".join(map(str, path))
            found[name] = path, tensor
    return found


def _rebuilt_list(content: Any, path: Keys, changes: Mapping[Keys, Any]) -> Any:
    for here in changes:
        if here[:-1] == path and not isinstance(here[-1], int):
            what = f"'{here[-1]}' can't be added beside '{'/'.join(map(str, path))}'"
            raise ModelError(what, because="that is a list, whose entries have no names")
    copied = []
    for i, each in enumerate(content):
        here = (*path, i)
        if here in changes and changes[here] is None:
            what = f"'{'/'.join(map(str, here))}' would go"
            raise ModelError(what, because="it stands in a list, and what follows it would move up")
        copied.append(changes[here] if here in changes else _rebuilt(each, here, changes))
    if hasattr(content, "_fields"):  # a named tuple takes its entries one by one
        return type(content)(*copied)
    return type(content)(copied)


def _rebuilt(content: Any, path: Keys, changes: Mapping[Keys, Any]) -> Any:
    if all(changed[: len(path)] != path for changed in changes):
        return content
    if isinstance(content, (list, tuple)):
        return _rebuilt_list(content, path, changes)
    copied: Any = type(content)()
    for key, each in content.items():
        here = (*path, key)
        if here not in changes:
            copied[key] = _rebuilt(each, here, changes)
        elif changes[here] is not None:
            copied[key] = changes[here]
    for here, tensor in changes.items():
        if here[:-1] == path and here[-1] not in content and tensor is not None:
            copied[here[-1]] = tensor
    metadata = getattr(content, "_metadata", None)
    if metadata is not None:
        copied._metadata = metadata
    return copied
