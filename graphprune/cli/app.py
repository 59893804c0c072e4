"""Entry point: commands, exit codes and errors."""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import typer

from graphprune.cli import (
    analysis_commands,
    carry_command,
    device_commands,
    info_commands,
    model_commands,
    profile_commands,
    prune_commands,
    recover_command,
    run_commands,
    sweep_commands,
)
from graphprune.cli.command_line import remember
from graphprune.cli.isolation import isolated
from graphprune.cli.output import fail, show_notes
from graphprune.cli.stopping import STOPPED, Stopped, stoppable
from graphprune.errors import GraphPruneError, InternalError, ModelError, UsageError, failed_file
from graphprune.invalid_models import answering_for_models
from graphprune.limits import max_bytes
from graphprune.target import parse_bytes

# What typer raises for a wrong command line; it comes from click or, in newer versions, from typer's copy.
_WRONG_USAGE: type[Any] = typer.BadParameter.__bases__[0]
_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

app = typer.Typer(
    name="graphprune",
    help="Structured pruning of any ONNX model: smaller, faster, and proven right.",
    no_args_is_help=False,
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for function in (
    analysis_commands.inspect,
    analysis_commands.explain,
    prune_commands.prune,
    prune_commands.apply,
    sweep_commands.sweep,
    run_commands.run,
    info_commands.info,
    model_commands.check,
    profile_commands.profile,
    model_commands.convert,
    device_commands.calibrate_device,
    carry_command.carry,
    recover_command.recover,
    prune_commands.demo,
):
    app.command()(answering_for_models(function))


@app.callback()
def options(
    context: typer.Context,
    show_traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an unexpected error comes from.")
    ] = False,
    isolate: Annotated[
        bool, typer.Option("--isolate", help="A process of its own: if a library crashes, that is an error.")
    ] = False,
    most: Annotated[
        str | None,
        typer.Option(
            "--max-bytes",
            metavar="SIZE",
            help="Refuse models, archives and documents that would take more when read: 500MB, 4GiB.",
            show_default="no limit",
        ),
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Structured pruning of any ONNX model: smaller, faster, and proven right."""
    if version:
        from graphprune import __version__

        typer.echo(f"graphprune {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)
    elif most is not None:
        context.with_resource(max_bytes(parse_bytes(most)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits: 0 done, 1 wrong input, 2 usage, 3 invalid, 4 out of reach, 70 our fault."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None and not sys.warnoptions:  # a process of its own, and nobody asked for warnings
        warnings.simplefilter("ignore")
    sys.exit(isolated(lambda: _run(given)) if "--isolate" in given else _run(given))


def _run(given: list[str]) -> int:
    """The exit code of a command, whose errors are printed."""
    remember(given)
    show_notes()
    logging.getLogger().addHandler(logging.NullHandler())  # what libraries log is no part of an error
    try:
        # Numbers that overflow are judged where they are used; a warning would be a second paragraph.
        with stoppable(), np.errstate(all="ignore"):
            code = app(given, prog_name="graphprune", standalone_mode=False) or 0
    except GraphPruneError as error:
        code = fail(error)
    except _WRONG_USAGE as error:
        command = error.ctx.command_path if error.ctx is not None else "graphprune"
        code = fail(UsageError(error.format_message().rstrip("."), hint=f"{command} -h"))
    except typer.Abort:
        typer.echo("interrupted: no output was written", err=True)
        code = _INTERRUPTED
    except Stopped:
        typer.echo("stopped: no output is half written", err=True)
        code = STOPPED
    except OSError as error:  # a full disk, a permission that is gone: whoever knows more says more
        if "--traceback" in given:
            traceback.print_exc()
        code = fail(failed_file(error))
    except MemoryError as error:
        message = "not enough memory"
        code = fail(ModelError(message, because=str(error) or None, hint="smaller sizes: --dim NAME=SIZE"))
    except Exception as error:
        if "--traceback" in given:
            traceback.print_exc()
        message = f"an error of our own: {type(error).__name__}: {error}"
        hint = "please report it, with what `graphprune --traceback …` prints"
        code = fail(InternalError(message, hint=hint))
    return int(code)
