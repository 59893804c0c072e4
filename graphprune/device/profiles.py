"""Device profiles: what was measured of a machine, as a document that plans can use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path
from typing import Any

from graphprune.device.curves import Curve, measure_curves
from graphprune.device.protocol import Device, Identity
from graphprune.device.store import cache_folder, read_json, write_json
from graphprune.errors import ModelError
from graphprune.progress import Progress

SCHEMA_VERSION = 1
_NAME = "profile.json"


@dataclass(frozen=True)
class Profile:
    """What is known of a machine.

    Attributes:
        identity: the machine and its runtime.
        date: of the measurement, UTC.
        curves: latency against width.
        is_quick: were only some kinds of layers measured, and once?
        tables: milliseconds of layers by model, as far as they were asked for.
        origin: where the profile comes from, for people.
    """

    identity: Identity
    date: str
    curves: tuple[Curve, ...]
    is_quick: bool = False
    tables: Mapping[str, Mapping[str, float]] | None = None
    origin: str = ""

    def multiples(self, dtype: str = "float32") -> dict[str, int]:
        """Preferred multiples by kind of layer: the largest that any of its widths asks for."""
        found: dict[str, int] = {}
        for curve in self.curves:
            if curve.dtype == dtype:
                found[curve.op] = max(found.get(curve.op, 1), curve.steps.multiple)
        return found

    def to_json(self) -> dict[str, Any]:
        """The document."""
        dtypes = sorted({curve.dtype for curve in self.curves})
        return {
            "schema_version": SCHEMA_VERSION,
            **self.identity.to_json(),
            "date": self.date,
            "quick": self.is_quick,
            "multiples": {dtype: self.multiples(dtype) for dtype in dtypes},
            "curves": [curve.to_json() for curve in self.curves],
            "tables": {name: dict(table) for name, table in (self.tables or {}).items()},
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any], origin: str) -> Profile:
        """The inverse of :meth:`to_json`.

        Raises:
            ModelError: the document is no profile.
        """
        try:
            if document["schema_version"] != SCHEMA_VERSION:
                message = f"a device profile of version {document['schema_version']} can't be read"
                raise ModelError(message, where=origin, hint="measure it again: graphprune calibrate-device")
            curves = tuple(Curve.from_json(entry) for entry in document["curves"])
            return cls(
                Identity.from_json(document), str(document["date"]), curves, bool(document["quick"]),
                _tables(document.get("tables") or {}), origin,
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            message = "this is no device profile"
            raise ModelError(message, where=origin, because=f"{type(error).__name__}: {error}") from error

    @classmethod
    def load(cls, path: Path) -> Profile:
        """Reads a profile.

        Raises:
            ModelError: there is none.
        """
        document = read_json(path)
        if document is None:
            message = f"cannot read a device profile from '{path}'"
            raise ModelError(message, hint="graphprune calibrate-device --out FILE.json")
        return cls.from_json(document, str(path))


def _tables(found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    return {name: {key: float(ms) for key, ms in table.items()} for name, table in found.items()}


def measure_profile(
    device: Device, dtypes: Sequence[str] = ("float32",), *, quick: bool = False, progress: Progress
) -> Profile:
    """Measures a machine's step curves.

    Raises:
        ModelError: the machine does not run such layers.
    """
    curves = measure_curves(device, dtypes, quick=quick, progress=progress)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Profile(device.identity, now, tuple(curves), quick, origin=_origin(now, quick=quick))


def _origin(date: str, *, quick: bool) -> str:
    """The same words when it is measured and when it is found again: plans hold them, and are hashed."""
    return f"measured {date}" + (", the quick way" if quick else "")


def keep_profile(profile: Profile) -> Path:
    """Puts a profile where :func:`find_profile` looks; its path.

    Raises:
        OSError: the cache can't be written to.
    """
    path = cache_folder(profile.identity) / _NAME
    write_json(path, profile.to_json())
    return path


def find_profile(device: Device, progress: Progress) -> Profile:
    """The profile of a machine: the user's own, one that is shipped, or one measured now, the quick way.

    Raises:
        ModelError: the machine does not run what is measured.
    """
    path = cache_folder(device.identity) / _NAME
    document = read_json(path)
    if document is not None:
        found = Profile.from_json(document, str(path))
        return replace(found, origin=_origin(found.date, quick=found.is_quick))
    for shipped in shipped_profiles():
        if is_alike(shipped.identity, device.identity):
            return shipped
    found = measure_profile(device, quick=True, progress=progress)
    with suppress(OSError):  # a home that can't be written to costs time, nothing else
        keep_profile(found)
    return found


def shipped_profiles() -> list[Profile]:
    """Profiles that come with graphprune."""
    folder = files("graphprune.device") / "shipped"
    found = []
    for entry in sorted(folder.iterdir(), key=lambda e: e.name) if folder.is_dir() else []:
        if entry.name.endswith(".json"):
            document = read_json(Path(str(entry)))
            if document is not None:
                date = document.get("date")
                found.append(Profile.from_json(document, f"shipped, measured {date}: {entry.name}"))
    return found


def is_alike(one: Identity, other: Identity) -> bool:
    """Do these machines like the same widths? Blocks depend on the kernels, not on threads or versions."""
    names = ("device", "flags", "runtime", "provider")
    return all(getattr(one, name) == getattr(other, name) for name in names)
