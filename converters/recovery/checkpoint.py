"""A run's state in a file, from which it goes on as if it had never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from graphprune.errors import ModelError
from graphprune.storage.durable import file_ready_at

_FORMAT = 1


def save(path: Path, run: dict[str, Any], state: dict[str, Any]) -> None:
    """Write beside the file and rename, so that a crash leaves the one before.

    Args:
        path: the file.
        run: what the run is made of (settings, hashes); `read` compares it.
        state: numbers and tensors.

    Raises:
        ModelError: the file can't be written.
    """
    try:
        with file_ready_at(path) as file:
            torch.save({"format": _FORMAT, "run": run, "state": state}, file)
    except (OSError, RuntimeError) as error:
        message = f"cannot write the checkpoint '{path}'"
        raise ModelError(message, because=str(error), hint="a file in a folder you can write to") from error


def read(path: Path, run: dict[str, Any]) -> dict[str, Any]:
    """The state in a file.

    Raises:
        ModelError: there is no such file, it is no checkpoint, or it is one of another run.
    """
    message = f"cannot resume from '{path}'"
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(message, because="there is no such file", hint="without --resume") from error
    except Exception as error:  # torch raises a dozen unrelated classes for what it can't unpickle
        because = " ".join(str(error).split())[:200]
        raise ModelError(message, because=because, hint="a file that --checkpoint wrote") from error
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise ModelError(
            message, because="it is no checkpoint of a recovery", hint="a file that --checkpoint wrote"
        )
    before = found["run"]
    other = [key for key in run if before.get(key) != run[key]]
    if other:
        because = "; ".join(
            f"{key} was {_short(before.get(key))}, is {_short(run[key])}" for key in other[:3]
        )
        hint = "the same files and options as before, or begin anew without --resume"
        raise ModelError(message, where="another run's checkpoint", because=because, hint=hint)
    state: dict[str, Any] = found["state"]
    return state


def _short(value: object) -> str:
    return str(value)[:40]
