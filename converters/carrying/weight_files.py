"""Files of weights of any framework: what they hold, and the same file with other arrays."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
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

    @property
    def file_names(self) -> tuple[str, ...]:
        """Further files that stand beside it, and are written with it under the same names."""
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

    file_names: tuple[str, ...] = ()

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

    Attributes:
        file_names: of the files beside the index.

    Raises:
        ModelError: the index or a file can't be read, or they do not fit each other.
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
        self.file_names = _plain_names(path, self._file_of.values())
        self._files = {name: SafetensorsFile(path.parent / name) for name in self.file_names}
        for name, file in self._files.items():
            listed = {n for n, where in self._file_of.items() if where == name}
            _require_listed(path, name, file.arrays, listed)

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
        for name, file in self._files.items():
            changed = {n: a for n, a in new.items() if where[n] == name}
            file.write(path.parent / name, changed, {n: a for n, a in added.items() if where[n] == name})
        left = {**self.arrays, **new, **{n: a for n, (_, a) in added.items()}}
        kept = {n: a for n, a in left.items() if a is not None}
        total = sum(array.nbytes for array in kept.values())
        metadata = {**self._index.get("metadata", {}), "total_size": total}
        index = {**self._index, "metadata": metadata, "weight_map": {n: where[n] for n in sorted(kept)}}
        path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _plain_names(index: Path, names: Iterable[Any]) -> tuple[str, ...]:
    """Names of the files of an index, each once: they stand beside it, nowhere else."""
    found = list(dict.fromkeys(map(str, names)))
    for name in found:
        if not name.endswith(".safetensors") or "/" in name or "\\" in name:
            what = f"'{index}' is not an index of safetensors files"
            raise ModelError(what, because=f"'{name}' is not the name of a .safetensors file beside it")
    return tuple(sorted(found))


def _require_listed(index: Path, name: str, arrays: Mapping[str, Array], listed: set[str]) -> None:
    """A file holds what the index says and nothing else: code that loads it may read either."""
    for array in sorted(set(arrays) ^ listed):
        there = "is in it, and the index says otherwise" if array in arrays else "is not in it"
        what = f"'{index}' does not fit its file '{name}'"
        raise ModelError(what, because=f"'{array}' {there}", hint="an index that lists what the files hold")


def is_weights(path: Path) -> bool:
    """Is it, by its name, a file of weights?"""
    return path.name.endswith(KINDS)


def kind_of(path: Path) -> tuple[str, ...]:
    """The endings of names of files of its kind; all those of torch are one kind."""
    if path.suffix in TORCH:
        return TORCH
    return tuple(ending for ending in (INDEX, ".safetensors") if path.name.endswith(ending))


def open_weights(path: Path, *, trust: bool = False) -> Weights:
    """The file.

    Args:
        path: of the file.
        trust: load what torch saved with objects of any class in it, which can run code.

    Raises:
        ModelError: it can't be read.
    """
    if path.name.endswith(INDEX):
        return SafetensorsFolder(path)
    if path.suffix == ".safetensors":
        return SafetensorsFile(path)
    from graphprune.converters.carrying.torch_file import TorchFile

    return TorchFile(path, trust=trust)
