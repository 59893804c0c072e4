"""Measuring through a link: models go there once, by the hash of their content."""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from graphprune.profiling.setups import Progress, Setup
from graphprune.remote import failures
from graphprune.remote.link import Link, digest_of
from graphprune.storage.external_places import external_files


class RemoteBench:
    """The machine behind a link.

    Args:
        link: a running runner.
    """

    def __init__(self, link: Link) -> None:
        self.link = link

    @cached_property
    def information(self) -> dict[str, Any]:
        """The machine and its runtime."""
        return self.link.ask("info")[0]

    def measure(
        self, setups: Sequence[Setup], shared: dict[str, Any], progress: Progress | None = None
    ) -> dict[str, Any]:
        """Latency in alternation, see :func:`graphprune.runner.timing.measure`."""
        runs = [{**setup.ask, "model": self.send_model(setup.model)} for setup in setups]
        names = ", ".join(setup.title for setup in setups)
        card = any(setup.provider.on_card for setup in setups)
        fields = {**shared, "runs": runs, "card": card}
        doing = f"measuring {names}"
        found = self.link.ask("measure", doing=doing, progress=progress, **fields)[0]
        if len(found["runs"]) != len(setups):
            raise failures.malformed(self.link.address, doing)
        return found

    def alone(self, setup: Setup) -> dict[str, Any]:
        """Memory and load time, see :func:`graphprune.runner.alone.alone`."""
        return self._ask("alone", setup)[0]

    def trace(self, setup: Setup, seconds: float) -> tuple[list[dict[str, Any]], bytes | None]:
        """Time by node, and the graph that onnxruntime made."""
        found, optimized = self._ask("trace", setup, seconds=seconds)
        return found["nodes"], optimized or None

    def outputs(
        self, setup: Setup, arrays: Mapping[str, npt.NDArray[Any]] | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """What a model computes there.

        Args:
            setup: the model; its made-up inputs are fed where there are no arrays.
            arrays: inputs by name.
        """
        fields: dict[str, Any] = {}
        if arrays is not None:
            fields = {"arrays": self.link.send_file(_to_npz(list(arrays.values()))), "names": list(arrays)}
        found, payload = self._ask("outputs", setup, **fields)
        try:
            return dict(zip(found["names"], _from_npz(payload), strict=True))
        except (ValueError, KeyError, OSError, EOFError, BadZipFile, zlib.error, RuntimeError) as error:
            raise failures.malformed(self.link.address, setup.title) from error

    def forget(self, models: Sequence[Path | bytes]) -> None:
        """Removes files there that nobody asks for again."""
        files: set[Path | bytes] = set(models)
        for model in models:
            if isinstance(model, Path):
                files |= {model.parent / location for location in external_files(model)}
        self.link.forget({digest_of(file) for file in files})

    def send_model(self, model: Path | bytes) -> dict[str, Any]:
        """Sends an ONNX file with its external data, and says how requests name it."""
        if isinstance(model, bytes):
            return {"sha256": self.link.send_file(model)}
        files = {model.name: self.link.send_file(model)}
        for location in external_files(model):
            files[location] = self.link.send_file(model.parent / location)
        return {"files": files, "main": model.name}

    def _ask(self, do: str, setup: Setup, **fields: Any) -> tuple[dict[str, Any], bytes]:
        model = self.send_model(setup.model)
        return self.link.ask(do, doing=f"{setup.title}, {setup.sizes}", **setup.ask, model=model, **fields)


def _to_npz(arrays: Sequence[npt.NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, *arrays)
    return buffer.getvalue()


def _from_npz(data: bytes) -> list[npt.NDArray[Any]]:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return [archive[f"arr_{number}"] for number in range(len(archive.files))]
