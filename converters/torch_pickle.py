"""A whole torch module in a pickle: loaded only for a user who says that the file is to be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphprune.converters import parity
from graphprune.converters import source as sources
from graphprune.converters.quiet import quiet
from graphprune.converters.torch import require_torch

from graphprune.errors import ModelError

FACTORY = "module:factory, where factory() builds the module and loads the checkpoint"


def load(path: Path, *, trust: bool) -> Any:
    """The module that ``torch.save(module, path)`` wrote.

    Args:
        path: the file.
        trust: load it, which runs whatever code the file names.

    Raises:
        ModelError: there is no trust, or the file holds no module.
    """
    torch = require_torch()
    if not path.is_file():
        msg = f"there is no file '{path}'"
        raise ModelError(msg)
    with quiet():
        try:
            # Tensors and plain containers only: safe for any file.
            found = torch.load(path, weights_only=True, map_location="cpu")
        except Exception as error:  # unpickling, zip and TorchScript errors
            if not trust:
                raise _untrusted(path, error) from error
            found = _unpickle(torch, path)
    if isinstance(found, torch.jit.ScriptModule):
        what = f"'{path}' is a TorchScript archive"
        raise ModelError(what, because="its network can't be read from it any more", hint=FACTORY)
    if isinstance(found, torch.nn.Module):
        return found
    what = f"'{path}' holds no module but a {type(found).__name__}"
    because = None
    if isinstance(found, Mapping):
        what = f"cannot tell which network the weights in '{path}' belong to"
        because = "a checkpoint holds weights; the network is in the code that made it"
    raise ModelError(what, because=because, hint=FACTORY)


def _untrusted(path: Path, error: Exception) -> ModelError:
    if "TorchScript" in str(error):
        what, because = f"'{path}' is a TorchScript archive", "its network can't be read from it any more"
        return ModelError(what, because=because, hint=FACTORY)
    if "weights_only" not in str(error) and "Weights only" not in str(error):
        what = f"torch cannot load '{path}'"
        return ModelError(what, because=parity.first_line(error))
    what = f"'{path}' is a pickle, and loading it can run any code that is in it"
    because = "a pickled module is rebuilt by calling whatever the file names"
    hint = "--trust (trust=True) if you know who made the file; else module:factory and a file of weights"
    return ModelError(what, because=because, hint=hint)


def _unpickle(torch: Any, path: Path) -> Any:
    try:
        with sources.importable(Path.cwd()):
            return torch.load(path, weights_only=False, map_location="cpu")
    except Exception as error:  # whatever the pickled code raises
        what = f"torch cannot load the module in '{path}'"
        because = f"{type(error).__name__}: {parity.first_line(error)}"
        hint = "run in the folder that holds the module's code"
        raise ModelError(what, because=because, hint=hint) from error
