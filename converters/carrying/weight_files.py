"""Files of weights of any framework: what they hold, and the same file with other arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt
from graphprune.converters.carrying.safetensors_file import read_safetensors, write_safetensors

from graphprune.errors import ModelError

Array = npt.NDArray[Any]
INDEX = ".safetensors.index.json"
TORCH = (".pt", ".pth", ".bin", ".ckpt")
#: What :func:`open_weights` reads.
KINDS = (".safetensors", INDEX, *TORCH)


class Weights(Protocol):
    """A file of weights."""

    @property
    def arrays(self) -> dict[str, Array]:
        """What it holds, by name; arrays that share their memory are tied."""
        ...

    def container(self, name: str) -> str:
        """Part of the file in which an array stands; empty if it has no parts."""
        ...

    def write(
        self, path: Path, new: Mapping[str, Array | None], added: Mapping[str, tuple[str, Array]]
    ) -> None:
        """Writes the same file with other arrays (None: it goes) and further ones beside these."""
        ...


class SafetensorsFile:
    """One ``.safetensors`` file.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.arrays, self._metadata = read_safetensors(path)

    def container(self, name: str) -> str:
        """There are no parts."""
        return ""

    def write(
        self, path: Path, new: Mapping[str, Array | None], added: Mapping[str, tuple[str, Array]]
    ) -> None:
        """See :class:`Weights`."""
        further = {name: array for name, (_, array) in added.items()}
        arrays = {**self.arrays, **new, **further}
        write_safetensors(path, {n: a for n, a in arrays.items() if a is not None}, self._metadata)


class SafetensorsFolder:
    """Several ``.safetensors`` files with an index, as large models are stored.

    Args:
        path: of the index.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._index = json.loads(path.read_text(encoding="utf-8"))
            self._file_of = dict(self._index["weight_map"])
        except OSError as error:
            what = f"cannot read '{path}'"
            raise ModelError(what, because=error.strerror or str(error)) from error
        except (ValueError, KeyError, TypeError) as error:
            what = f"'{path}' is not an index of safetensors files"
            raise ModelError(what, because=f"{type(error).__name__}: {error}") from error
        self._files = {
            name: SafetensorsFile(path.parent / name) for name in sorted(set(self._file_of.values()))
        }

    @property
    def arrays(self) -> dict[str, Array]:
        """Of all files."""
        return {name: array for file in self._files.values() for name, array in file.arrays.items()}

    def container(self, name: str) -> str:
        """There are no parts."""
        return ""

    def write(
        self, path: Path, new: Mapping[str, Array | None], added: Mapping[str, tuple[str, Array]]
    ) -> None:
        """See :class:`Weights`; the files keep their names and stand beside the new index."""
        where = {**self._file_of, **{name: self._file_of[beside] for name, (beside, _) in added.items()}}
        total = 0
        for name, file in self._files.items():
            changed = {n: a for n, a in new.items() if where[n] == name}
            file.write(path.parent / name, changed, {n: a for n, a in added.items() if where[n] == name})
        left = {**self.arrays, **new, **{n: a for n, (_, a) in added.items()}}
        kept = {n: a for n, a in left.items() if a is not None}
        total = sum(array.nbytes for array in kept.values())
        metadata = {**self._index.get("metadata", {}), "total_size": total}
        index = {**self._index, "metadata": metadata, "weight_map": {n: where[n] for n in sorted(kept)}}
        path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def is_weights(path: Path) -> bool:
    """Is it, by its name, a file of weights?"""
    return path.name.endswith(KINDS)


def open_weights(path: Path) -> Weights:
    """The file.

    Raises:
        ModelError: it can't be read.
    """
    if path.name.endswith(INDEX):
        return SafetensorsFolder(path)
    if path.suffix == ".safetensors":
        return SafetensorsFile(path)
    from graphprune.converters.carrying.torch_file import TorchFile

    return TorchFile(path)
