"""Jobs from a TOML file: the same words as on the command line, and turned into it.

So a job can do what the command can, is checked as the command is, and a report names the command.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from graphprune.documents import parse_toml, read_text
from graphprune.errors import UsageError

#: Sections that say what is done; each job has one of them.
_KINDS = {"target": "prune", "sweep": "sweep", "apply": "apply"}
#: Options that have a place of their own: section -> key -> option.
_PLACES: dict[str, dict[str, str]] = {
    "model": {"dims": "dim", "declare": "declare", "allow-io": "allow-io"},
    "calibration": {"data": "calibration", "samples": "samples"},
    "sweep": {key: key for key in ("targets", "metric", "out-dir", "data", "measure", "report")},
}
_POSITIONAL = {"prune": ("path", "out"), "sweep": ("path",), "apply": ("path", "out")}
_METRICS = ("macs", "params", "bytes", "latency")
#: Paths by meaning; "none" is no file.
_MAYBE_PATHS = {"calibration"}
_COMMAS = {"targets", "kinds"}


@dataclass(frozen=True)
class Option:
    """An option of a command.

    Attributes:
        name: without the hyphens.
        is_flag: takes no value.
        negation: name of its opposite, if it has one.
        repeats: may be given several times.
        is_path: names a file or folder.
    """

    name: str
    is_flag: bool
    negation: str | None
    repeats: bool
    is_path: bool


#: Options of each command, by name.
Commands = Mapping[str, Mapping[str, Option]]


@dataclass(frozen=True)
class Job:
    """One job: its name ("" if it has none), and its command line."""

    name: str
    arguments: list[str]


def read_jobs(path: Path, commands: Commands, only: str | None = None) -> list[Job]:
    """The jobs of a file, in order.

    Args:
        path: of the file; paths in it are relative to its folder.
        commands: what may be asked for.
        only: name of the one job that is wanted.

    Raises:
        UsageError: it can't be read, or says something that is not known.
    """
    document = _read(path)
    named = document.pop("jobs", {})
    _require_table(named, "jobs", path)
    known = (*_KINDS, *_PLACES, "options")
    if not named:
        _require_keys(document, (*known, "jobs"), "", path)
        jobs = {"": document}
    else:
        _require_keys(document, (*known, "jobs"), "", path)
        jobs = {}
        for name, own in named.items():
            _require_table(own, f"jobs.{name}", path)
            _require_keys(own, known, f"jobs.{name}", path)
            jobs[name] = _merged(document, own)
    if only is not None:
        if only not in jobs:
            message = f"there is no job '{only}'"
            raise UsageError(message, where=str(path), hint=f"one of {', '.join(jobs)}")
        jobs = {only: jobs[only]}
    return [Job(name, _arguments(sections, commands, name, path)) for name, sections in jobs.items()]


def _read(path: Path) -> dict[str, Any]:
    message = f"cannot read the job file '{path}'"
    try:
        return parse_toml(read_text(path))
    except OSError as error:
        hint = "graphprune run FILE.toml"
        raise UsageError(message, because=error.strerror, hint=hint) from error
    except ValueError as error:  # tomllib's error, and bytes that are no text
        raise UsageError(message, because=str(error), hint="TOML: docs/pipelines.md") from error


def _merged(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A job's sections over those of all jobs; what it does is its own choice."""
    base = dict(common)
    if any(kind in own for kind in _KINDS):
        for kind in _KINDS:
            if kind not in own:
                base.pop(kind, None)
    found = {name: section for name, section in base.items() if name not in own}
    for name, section in own.items():
        below = base.get(name)
        both = isinstance(below, dict) and isinstance(section, dict)
        found[name] = {**below, **section} if both and name != "target" else section  # type: ignore[dict-item]
    return found


def _arguments(sections: Mapping[str, Any], commands: Commands, name: str, path: Path) -> list[str]:
    where = f"jobs.{name}" if name else ""
    for section, body in sections.items():
        _require_table(body, f"{where}.{section}".strip("."), path)
    kinds = [kind for kind in _KINDS if kind in sections]
    if len(kinds) != 1:
        message = "a job does one thing" if kinds else "the job does not say what to do"
        raise UsageError(message, where=str(path), hint="one of [target], [sweep] and [apply]")
    command = _KINDS[kinds[0]]
    options = commands[command]
    model = dict(sections.get("model", {}))
    found = [command]
    if command == "apply":
        _require_keys(sections["apply"], ("plan",), "apply", path)
        found.append(_path(_needed(sections["apply"], "plan", "apply", path), path))
    for key in _POSITIONAL[command]:
        found.append(_path(_needed(model, key, "model", path), path))
    if command == "sweep":  # a file for one model says nothing here
        model.pop("out", None)
    given: dict[str, Any] = {}
    if command == "prune":
        _require_keys(sections["target"], _METRICS, "target", path)
        given["target"] = [f"{metric}={_amount(share)}" for metric, share in sections["target"].items()]
    for section, keys in _PLACES.items():
        body = model if section == "model" else sections.get(section, {})
        rest = {key: value for key, value in body.items() if key not in ("path", "out") or section != "model"}
        _require_keys(rest, (*keys, *(("path", "out") if section == "model" else ())), section, path)
        given.update({keys[key]: value for key, value in rest.items()})
    free = [key for key in options if key not in ("json", "help", "target")]
    for key, value in sections.get("options", {}).items():
        _require_keys({key: value}, free, "options", path)
        if key in given:
            message = f"'{key}' is said twice"
            raise UsageError(message, where=str(path), hint="in [options] or in its own section")
        given[key] = value
    for key, value in given.items():
        if key not in options:
            message = f"'{key}' is no option of {command}"
            raise UsageError(message, where=str(path), hint=f"graphprune {command} -h")
        found.extend(_words(options[key], value, path))
    return found


def _words(option: Option, value: Any, path: Path) -> Iterator[str]:
    if option.is_flag:
        if not isinstance(value, bool):
            message = f"'{option.name}' is true or false, not {value!r}"
            raise UsageError(message, where=str(path))
        if value or option.negation is not None:
            yield f"--{option.name if value else option.negation}"
        return
    if isinstance(value, dict):
        value = [f"{name}={size}" for name, size in value.items()]
    values: Sequence[Any] = value if isinstance(value, list) else [value]
    for each in values:
        if isinstance(each, (bool, dict, list)) or (not isinstance(each, (str, int, float))):
            message = f"'{option.name}' can't be {each!r}"
            raise UsageError(message, where=str(path), hint="a text or a number")
    texts = [str(each) for each in values]
    if option.name in _COMMAS:
        texts = [",".join(texts)]
    elif len(texts) != 1 and not option.repeats:
        message = f"'{option.name}' has {len(texts)} values"
        raise UsageError(message, where=str(path), hint="one")
    is_path = option.is_path or (option.name in _MAYBE_PATHS and texts[0] != "none")
    for text in texts:
        yield f"--{option.name}={_path(text, path) if is_path else text}"


def _amount(share: Any) -> str:
    """0.5 is a half, as in Python; texts are as on the command line."""
    if isinstance(share, float) and 0 < share < 1:
        return f"{100 * share:.10g}%"
    return str(share)


def _path(text: Any, file: Path) -> str:
    """Relative to the job file's folder."""
    return str(file.parent / str(text))


def _needed(section: Mapping[str, Any], key: str, name: str, path: Path) -> Any:
    value = section.get(key)
    if not isinstance(value, str) or not value:
        message = f"[{name}] lacks '{key}'" if value is None else f"'{key}' of [{name}] is no path"
        raise UsageError(message, where=str(path), hint=f'{key} = "FILE"')
    return value


def _require_table(value: Any, name: str, path: Path) -> None:
    if not isinstance(value, dict):
        message = f"'{name}' is no section"
        raise UsageError(message, where=str(path), hint=f"[{name}]")


def _require_keys(section: Mapping[str, Any], known: Sequence[str], name: str, path: Path) -> None:
    for key in section:
        if key in known:
            continue
        message = f"unknown key '{key}'" + (f" in [{name}]" if name else "")
        close = get_close_matches(key.replace("_", "-"), known, n=1, cutoff=0.5)
        hint = f"'{close[0]}'" if close else f"one of {', '.join(sorted(known))}"
        raise UsageError(message, where=str(path), hint=hint)
