"""`run`."""

from __future__ import annotations

import io
import json as json_format
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from graphprune.cli import prune_commands, sweep_commands
from graphprune.cli.command_line import remember
from graphprune.cli.jobs import Commands, Job, Option, read_jobs
from graphprune.cli.output import log, show_json
from graphprune.cli.parameters import Json
from graphprune.report import SCHEMA_VERSION

_COMMANDS: dict[str, Callable[..., None]] = {
    "prune": prune_commands.prune,
    "sweep": sweep_commands.sweep,
    "apply": prune_commands.apply,
}


def run(
    file: Annotated[Path, typer.Argument(metavar="JOB.toml", help="What to do: docs/pipelines.md.")] = Path(
        "graphprune.toml"
    ),
    job: Annotated[str | None, typer.Option("--job", metavar="NAME", help="Only this one.")] = None,
    json: Json = False,
) -> None:
    """Does what a file says: prune, sweep or apply, one job or several in order."""
    jobs = read_jobs(file, _commands(), job)
    documents: dict[str, Any] = {}
    code = 0
    for each in jobs:
        if len(jobs) > 1:
            log(f"job {each.name}")
        code, text = _carry_out(each, json=json)
        if json and text:
            documents[each.name] = json_format.loads(text)
        if code:
            break
    if json and len(jobs) == 1:
        show_json(documents[jobs[0].name])
    elif json:
        show_json({"schema_version": SCHEMA_VERSION, "jobs": documents})
    if code:  # a sweep that did not reach every target
        raise typer.Exit(code)


def _carry_out(job: Job, *, json: bool) -> tuple[int, str]:
    """Exit code, and what was printed if it is to be a document."""
    from graphprune.cli.app import app

    arguments = [*job.arguments, *(["--json"] if json else [])]
    remember(arguments)
    printed = io.StringIO()
    if not json:
        return int(app(arguments, prog_name="graphprune", standalone_mode=False) or 0), ""
    with redirect_stdout(printed):
        code = int(app(arguments, prog_name="graphprune", standalone_mode=False) or 0)
    return code, printed.getvalue()


def _commands() -> Commands:
    """The options that the commands have, read off their functions."""
    return {name: dict(_options(function)) for name, function in _COMMANDS.items()}


def _options(function: Callable[..., None]) -> Iterator[tuple[str, Option]]:
    for name, hint in get_type_hints(function, include_extras=True).items():
        told = next((m for m in getattr(hint, "__metadata__", ()) if hasattr(m, "param_decls")), None)
        if told is None or isinstance(told, type(typer.Argument())):
            continue
        # The first name that a typer.Option gets stands in its `default` until typer has read it.
        names = [t for t in (told.default, *(told.param_decls or ())) if str(t).startswith("--")]
        text = str(names[0]) if names else f"--{name.replace('_', '-')}"
        own, _, negation = text.removeprefix("--").partition("/")
        kind = hint.__origin__
        kinds = [kind, *get_args(kind)]
        yield own, Option(
            own, kind is bool, negation.removeprefix("--") or None,
            any(each is list or get_origin(each) is list for each in kinds), Path in kinds,
        )  # fmt: skip
