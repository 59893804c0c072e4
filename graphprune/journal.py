"""What a run has found out so far, in files beside its output: a later run goes on from there.

An entry is a file that appears whole or not at all.  The journal belongs to one question: the same model,
samples and options, and the same version.  What is read from it was computed by the same code from the same
numbers, so a run that goes on ends with the same output as one that was never interrupted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np
import numpy.typing as npt

from graphprune.calibration.samples import Samples
from graphprune.model import Model
from graphprune.parts import is_big
from graphprune.storage.workspace import JOURNAL
from graphprune.version import VERSION

Arrays = Mapping[str, npt.NDArray[np.generic]]
_KEY = "question"
_log = logging.getLogger("graphprune")


class Journal:
    """Entries by name.  Without a folder nothing is kept.

    Args:
        folder: of the files; None: none.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    @classmethod
    def at(cls, folder: Path, question: str) -> Journal:
        """The journal of a question in this folder; whatever another question left there is removed."""
        path = folder / JOURNAL
        key = path / _KEY
        with suppress(OSError):
            if key.read_text() == question:
                _log.info("going on from %d results of the run before", sum(1 for _ in path.iterdir()) - 1)
                return cls(path)
            _log.info("nothing to go on from: the run before was another one")
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        key.write_text(question)
        return cls(path)

    def get(self, name: str) -> dict[str, npt.NDArray[np.generic]] | None:
        """An entry; None if it is not there."""
        if self._folder is None:
            return None
        try:
            with self._file(name).open("rb") as file:  # numpy leaves a file open that it can't read
                archive = np.load(file, allow_pickle=False)
                return {key: archive[key] for key in archive.files}
        except (OSError, EOFError, ValueError, KeyError, AttributeError, BadZipFile, ZlibError):
            return None

    def put(self, name: str, arrays: Arrays) -> None:
        """Keeps an entry.  Where it can't be written, a later run has to compute it again."""
        if self._folder is None or any(array.dtype.isbuiltin != 1 for array in arrays.values()):
            return
        path = self._file(name)
        part = path.with_suffix(".part")
        try:
            with part.open("wb") as file:
                np.savez(file, allow_pickle=False, **{k: np.asarray(array) for k, array in arrays.items()})
            os.replace(part, path)  # noqa: PTH105 (the atomic one, by name)
        except OSError:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def remember(self, name: str, compute: Callable[[], Arrays]) -> Arrays:
        """An entry, computed if it is not there."""
        known = self.get(name)
        if known is not None:
            return known
        found = compute()
        self.put(name, found)
        return found

    def forget(self, name: str) -> None:
        """Drops an entry."""
        if self._folder is not None:
            with suppress(OSError):
                self._file(name).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.npz"


#: Keeps nothing.
NOTHING = Journal()


def open_journal(
    folder: Path | None, model: Model, samples: Samples | None, asked: Mapping[str, object], *, resume: bool
) -> Journal:
    """The journal of a run; one that keeps nothing where nothing is written, or the model is small.

    Args:
        folder: beside the output, that only this run has.
        model: as it was loaded.
        samples: the user's.
        asked: the options.
        resume: go on from what is there, if it is about the same.
    """
    if folder is None or not (resume or is_big(model)):
        return NOTHING
    digest = hashlib.sha256()
    for name, array in sorted(samples.feeds.items()) if samples is not None else ():
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    question = {
        "version": VERSION, "model": model.sha256, "samples": digest.hexdigest(),
        "files": sorted((str(path), state) for path, state in model.stamps.states.items()), **asked,
    }  # fmt: skip
    return Journal.at(folder, json.dumps(question, sort_keys=True, default=str))
