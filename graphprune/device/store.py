"""The user's cache: what was measured on which device stays there, one folder per device and settings."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from graphprune.device.pieces import Piece, time_pieces
from graphprune.device.protocol import Device, Identity
from graphprune.documents import parse_json, read_text
from graphprune.storage.durable import file_ready_at

_TIMES = "times.json"
#: Pieces after which the file is written: an interruption loses no more.
_CHUNK = 144


def cache_folder(identity: Identity) -> Path:
    """Where things about a device are kept; the folder may not exist."""
    return _root() / "devices" / identity.key


def _root() -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    if given:
        return Path(given) / "graphprune"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "graphprune"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "graphprune"
    return Path.home() / ".cache" / "graphprune"


def read_json(path: Path) -> dict[str, Any] | None:
    """A document; None if there is none that can be read: what a cache lost is measured again."""
    try:
        document = parse_json(read_text(path))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Writes beside the file and renames, so that nobody reads half of it.

    Raises:
        OSError: the folder can't be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_ready_at(path) as file:
        file.write(json.dumps(document, indent=1).encode())


def known_times(
    device: Device, pieces: Sequence[Piece], progress: Callable[[int, int], None] | None = None
) -> dict[Piece, float]:
    """Milliseconds of pieces: from the cache what was measured before, the rest measured now.

    Args:
        device: where.
        pieces: what.
        progress: is told how many of how many are there.

    Raises:
        ModelError: the device does not run them.
    """
    path = cache_folder(device.identity) / _TIMES
    document = read_json(path) or {}
    stored = _times(document.get("milliseconds"))
    wanted = list(dict.fromkeys(pieces))
    missing = [piece for piece in wanted if piece.key not in stored]
    done = len(wanted) - len(missing)
    for start in range(0, len(missing), _CHUNK):
        if progress is not None:
            progress(done + start, len(wanted))
        chunk = missing[start : start + _CHUNK]
        stored |= {piece.key: round(ms, 6) for piece, ms in time_pieces(device, chunk).items()}
        _keep(path, device.identity, stored)
    if progress is not None and wanted:
        progress(len(wanted), len(wanted))
    return {piece: stored[piece.key] for piece in wanted}


def _times(found: object) -> dict[str, float]:
    """What is a time of what the cache says."""
    entries = found.items() if isinstance(found, dict) else ()
    return {str(key): float(ms) for key, ms in entries if isinstance(ms, (int, float)) and 0 <= ms < 1e9}


def _keep(path: Path, identity: Identity, stored: Mapping[str, float]) -> None:
    document = {"schema_version": 1, "identity": identity.to_json(), "milliseconds": dict(stored)}
    try:
        write_json(path, document)
    except OSError:  # a home that can't be written to costs time, nothing else
        return
