"""Is a file still the one that was read?"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from graphprune.errors import ModelError

#: Size, time of the last change in nanoseconds, and the file itself.
_State = tuple[int, int, int, int]


@dataclass(frozen=True)
class Stamps:
    """What files looked like when they were opened.

    Attributes:
        states: by path.
    """

    states: Mapping[Path, _State] = field(default_factory=dict)

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Stamps:
        """How files look now; those that are missing are left to whoever opens them."""
        return cls({path.absolute(): state for path in paths if (state := _state(path)) is not None})

    def with_those_of(self, paths: Iterable[Path]) -> Stamps:
        """These, and of further files how they look now."""
        return Stamps({**Stamps.of(paths).states, **self.states})

    def only(self, paths: Iterable[Path]) -> Stamps:
        """Those of some files."""
        return Stamps({path: self.states[path] for path in paths if path in self.states})

    def require_same(self) -> None:
        """Nothing that is made of these files may be written if one of them is another by now.

        Raises:
            ModelError: one was changed, replaced or removed.
        """
        for path, state in self.states.items():
            now = _state(path)
            if now == state:
                continue
            message = f"'{path}' was {'removed' if now is None else 'changed'} while it was read"
            because = "what was computed may be of the file before and of the file after"
            raise ModelError(message, because=f"{because}; nothing was written", hint="run it again")


NOTHING = Stamps()


def _state(path: Path) -> _State | None:
    try:
        found = os.stat(path)  # noqa: PTH116 (one call)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev
