"""Documents that users give: JSON and TOML, which may be anything."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

from graphprune.limits import require_size

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_text(path: str | Path) -> str:
    """The text of a file.

    Raises:
        OSError: it can't be read, or is a pipe or a device.
        ValueError: it is not UTF-8.
        ModelError: it is larger than the user allows.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        message = "it is no regular file"
        raise OSError(0, message, str(path))
    require_size(path.stat().st_size, f"'{path}'")
    return path.read_text(encoding="utf-8")


def parse_json(text: str | bytes) -> Any:
    """A document in strict JSON: no NaN, no infinities, nothing nested too deeply.

    Raises:
        ValueError: it is none.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        message = "it is nested too deeply"
        raise ValueError(message) from None


def parse_toml(text: str) -> dict[str, Any]:
    """A document in TOML.

    Raises:
        ValueError: it is none.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        message = "it is nested too deeply"
        raise ValueError(message) from None


def _refuse(constant: str) -> NoReturn:
    message = f"{constant} is no JSON"
    raise ValueError(message)
