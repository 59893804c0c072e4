"""From the folder in which an output was made to its place: at every moment it is the old one or the new.

One file is renamed.  With weights in files beside it, two names can't change at once, and the old ones may be
the same as the new ones.  So, where a data file of that name is there already:

1. ``out.onnx`` is replaced by a copy of the new one that reads the new data where they were made,
   ``.out.onnx.graphprune/out.onnx.data``; nothing reads the old ones any more;
2. these data get their name beside ``out.onnx`` as well;
3. ``out.onnx`` is replaced by the one that reads them there.

A run that is killed in between has written a complete model; the next run takes the steps that are left.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
from contextlib import suppress
from glob import escape
from pathlib import Path

from graphprune.storage.durable import require_plain, sync_file, sync_folder
from graphprune.storage.references import redirected, references

#: Files up to this size are copied rather than linked for a moment.
_COPIED = 1 << 26


def publish(
    folder: Path,
    target: Path,
    data: Sequence[str] = (),
    *,
    kept: Collection[Path] = (),
    durable: bool = True,
) -> None:
    """Moves an output to its place.

    Args:
        folder: where it was made, beside the target.
        target: the output; ``folder`` has a file of that name.
        data: names of the data files that it reads, each in ``folder`` as well.
        kept: files that stay, even if they are data of the old output.
        durable: wait until all of it is on the disk.

    Raises:
        OSError: a file can't be moved; the old output is what it was, or the new one is complete.
    """
    for name in (*data, target.name):
        require_plain(target.parent / name, folder=False)
    if durable:
        for name in (*data, target.name):
            sync_file(folder / name)
        sync_folder(folder)
    old = [path for path in _old_data(target, data) if not any(path.samefile(file) for file in kept)]
    taken = [name for name in data if os.path.lexists(target.parent / name)]
    if taken and target.exists():
        _point_into(folder, target, data)
        _settle(folder, target, data)
    else:
        for name in data:
            _move(folder / name, target.parent / name)
        _move(folder / target.name, target)
    if durable:
        sync_folder(target.parent)
    for path in old:
        path.unlink(missing_ok=True)


def is_needed(folder: Path, target: Path) -> bool:
    """Does the output read from the folder in which it was made?"""
    return (folder / target.name).is_file() and bool(_read_inside(folder, target))


def finish(folder: Path, target: Path) -> bool:
    """Takes the steps that a killed run left; False if its output was not complete, or there are none.

    Raises:
        OSError: a file can't be moved; the output is complete where it is.
    """
    data = _read_inside(folder, target) if (folder / target.name).is_file() else []
    if not data:
        return False
    _settle(folder, target, data)
    sync_folder(target.parent)
    return True


def _point_into(folder: Path, target: Path, data: Sequence[str]) -> None:
    """Puts a copy of the new model in place of the old, which reads its data in ``folder``."""
    copy = folder / f"{target.name}.inside"
    copy.write_bytes(redirected(folder / target.name, data, folder.name))
    sync_file(copy)
    _move(copy, target)


def _settle(folder: Path, target: Path, data: Sequence[str]) -> None:
    """Gives the data their names beside the output, then the output the model that reads them there."""
    for name in data:
        beside, second = target.parent / name, folder / f"{name}.second"
        _double(folder / name, second)
        if not (beside.exists() and beside.samefile(second)):
            _move(second, beside)
    _move(folder / target.name, target)
    for name in data:
        (folder / name).unlink()


def _double(file: Path, second: Path) -> None:
    """Gives a file a second name: small ones a copy, since there are readers that refuse linked files."""
    second.unlink(missing_ok=True)
    ways = (_copy, os.link) if file.stat().st_size <= _COPIED else (os.link, _copy)
    try:
        ways[0](file, second)
    except OSError:  # no room for a copy, or a file system without links
        second.unlink(missing_ok=True)
        ways[1](file, second)


def _copy(file: Path, second: Path) -> None:
    shutil.copyfile(file, second)
    sync_file(second)


def _old_data(target: Path, data: Sequence[str]) -> list[Path]:
    """Data files of the old output that would be left over: those that are named after it."""
    named = [path for path in target.parent.glob(f"{escape(target.name)}.data*") if path.name not in data]
    read: list[str] = []
    with suppress(OSError):  # an old output that nobody can read is replaced all the same
        read = references(target) if named else []
    return [path for path in named if path.name in read and path.is_file() and not path.is_symlink()]


def _read_inside(folder: Path, target: Path) -> list[str]:
    """Names of the files in ``folder`` that the output reads."""
    prefix = f"{folder.name}/"
    read = references(target, even_large=True)
    names = [name.removeprefix(prefix) for name in read if name.startswith(prefix)]
    return [name for name in names if Path(name).name == name]


def _move(source: Path, target: Path) -> None:
    os.replace(source, target)  # noqa: PTH105 (the atomic one, by name)
