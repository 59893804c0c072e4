"""Where external data may be: in a file of its own inside the model's folder, nowhere else.

A model file must not make a program read (or send elsewhere, or cut into a new file) what its author could
not read: ``/etc/passwd``, ``../secret``, a link that leads out, a device, a pipe.
"""

from __future__ import annotations

from itertools import chain
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
import onnx_ir as ir

from graphprune.errors import ModelError
from graphprune.limits import require_size
from graphprune.storage.references import stored_in


def external_files(model: Path) -> list[str]:
    """Files beside an ONNX file that hold its weights.

    Raises:
        ModelError: the file can't be read, one of those is missing or not in its folder, or all tensors
            together are larger than the user allows.
    """
    require_size(model.stat().st_size, f"model file '{model}'")
    try:
        proto = onnx.load_model(str(model), load_external_data=False)
    except Exception as error:  # protobuf raises what it likes
        what = f"cannot read the ONNX file '{model}'"
        raise ModelError(what, because=str(error) or None) from error
    found: dict[str, str] = {}
    total = 0
    for tensor in chain.from_iterable(map(stored_in, (proto.graph, *proto.functions))):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            found.setdefault(entries.get("location", ""), tensor.name)
            total += _declared(tensor)
    for location, name in found.items():
        require_inside(model.parent, location, name)
    require_size(total, f"what the tensors of '{model}' hold")
    return sorted(found)


def _declared(tensor: onnx.TensorProto) -> int:
    """Bytes by type and shape; none if there is no such type."""
    try:
        return int(prod(tensor.dims) * ir.DataType(tensor.data_type).bitwidth // 8)
    except (TypeError, ValueError):
        return 0


def require_inside(folder: Path, location: str, tensor: str) -> Path:
    """The file that ``location`` names.

    Args:
        folder: of the model.
        location: as the model names it.
        tensor: whose data it is.

    Raises:
        ModelError: it names something elsewhere, a link, nothing, or no file.
    """
    where = f"tensor '{tensor}'"
    path = folder / location
    message = f"external data file '{path}' of {where} is not in the model's folder"
    hint = "copy the model and its data into one folder, following links (cp -L)"
    roots = PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor
    if roots or ".." in (*PurePosixPath(location).parts, *PureWindowsPath(location).parts):
        because = "a model file must not name files elsewhere"
        raise ModelError(message, where=where, because=because, hint=hint)
    if not location or not _is_file(path):
        message = f"external data file '{path}' of {where} does not exist"
        because = "the weights of this model are stored beside it, and no file is there"
        raise ModelError(
            message, where=where, because=because, hint=f"put '{location}' beside the model file"
        )
    base, real = folder.resolve(), path.resolve()
    if base not in real.parents or path.stat().st_nlink != 1:
        because = "it is a link to another place, and a model file must not name files elsewhere"
        raise ModelError(message, where=str(real), because=because, hint=hint)
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or holds a zero
        return False
