"""One mutated file through one command, in this process, and what is to be said about it.

A run is right if it ends with a documented exit code and a one-paragraph error, or with a file that passes
the oracle; nothing else is written, and the input is what it was.
"""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import byte_mutations
import document_mutations as documents
import message_mutations
import numpy as np
import onnx
import seed_models
from networks import feeds as feeds_of

from graphprune.cli import main

PARAGRAPH = re.compile(
    r"graphprune: \S[^\n]*\n(  where:   \S[^\n]*\n)?(  because: \S[^\n]*\n)?(  try:     \S[^\n]*\n)?"
)
#: Wrong input, usage, not valid, out of reach.  70 is documented as well, but it is a finding.
CODES = (1, 2, 3, 4)
PRUNE = ("--target", "macs=60%", "--criterion", "l2")
#: Commands and how often they are drawn.
COMMANDS = {
    "prune": 56, "params": 8, "recipe": 3, "inspect": 10, "explain": 3, "apply": 8, "check": 6, "profile": 2,
    "convert": 3, "sweep": 1,
}  # fmt: skip


@dataclass
class Trial:
    """What was run, and what came of it.

    Attributes:
        seed: makes it again.
        base: name of the seed model.
        changes: what was mutated.
        arguments: of the command.
        outcome: a few words to count by; those that begin with "!" are findings.
        detail: of a finding.
    """

    seed: int
    base: str
    changes: list[str]
    arguments: list[str]
    outcome: str = ""
    detail: str = ""
    files: dict[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def is_finding(self) -> bool:
        """Is something wrong?"""
        return self.outcome.startswith("!")


def prepare(seed: int, folder: Path) -> Trial:
    """Writes the files of a trial into an empty folder."""
    rng = np.random.default_rng(seed)
    base = message_mutations.pick(rng, seed_models.names())
    trial = Trial(seed, base, [], [])
    (folder / "good.onnx").write_bytes(seed_models.serialized(base))
    kind = int(rng.integers(20))
    if kind >= 17:
        (folder / "model.onnx").write_bytes(seed_models.serialized(base))
        _other_file(trial, rng, folder)
    else:
        _model(trial, rng, folder)
        command = str(
            rng.choice(list(COMMANDS), p=np.array(list(COMMANDS.values())) / sum(COMMANDS.values()))
        )
        trial.arguments = _arguments(command, base, folder)
    trial.files = _contents(folder)
    return trial


def _model(trial: Trial, rng: np.random.Generator, folder: Path) -> None:
    """Writes a mutated model, perhaps with its weights in a file of their own."""
    model = seed_models.built(trial.base)
    if rng.integers(6) == 0:
        (folder.parent / "outside.data").write_bytes(bytes(1 << 16))
        (folder / "folder").mkdir()
        onnx.save(
            model, folder / "model.onnx", save_as_external_data=True, location="model.data", size_threshold=0
        )
        model = onnx.load(folder / "model.onnx", load_external_data=False)
        (folder / "link.data").symlink_to(folder.parent / "outside.data")
        (folder / "link").symlink_to(folder.parent)
        os.link(folder.parent / "outside.data", folder / "hard.data")
        os.mkfifo(folder / "pipe")
        if rng.integers(2):
            trial.changes.append(message_mutations.external_entry(model, rng))
        elif rng.integers(3) == 0:
            data, what = byte_mutations.blind((folder / "model.data").read_bytes(), rng)
            (folder / "model.data").write_bytes(data)
            trial.changes.append(f"data: {what}")
    kind = int(rng.integers(10))
    if kind < 7 or trial.changes:
        trial.changes += [message_mutations.mutate(model, rng) for _ in range(int(rng.integers(1, 4)))]
    data = model.SerializeToString()
    if kind >= 7:
        change = byte_mutations.along_the_wire if kind < 9 else byte_mutations.blind
        for _ in range(int(rng.integers(1, 3))):
            data, what = change(data, rng)
            trial.changes.append(what)
    (folder / "model.onnx").write_bytes(data)


def _arguments(command: str, base: str, folder: Path) -> list[str]:
    model, good, out, plan = (str(folder / n) for n in ("model.onnx", "good.onnx", "out.onnx", "plan.json"))
    if command == "apply":
        Path(plan).write_text(plan_of(base) or "{}", encoding="utf-8")
    return {
        "prune": ["prune", model, out, *PRUNE, "--exact-only", "--plan-out", plan],
        "params": ["prune", model, out, "--target", "params=70%", "--criterion", "l1",
                   "--report", str(folder / "report.html")],
        "recipe": ["prune", model, out, "--target", "macs=60%"],
        "inspect": ["inspect", model, "--graph", str(folder / "graph.json")],
        "explain": ["explain", model, _first_weight(base)],
        "apply": ["apply", plan, model, out],
        "check": ["check", good, model],
        "profile": ["profile", model, "--repeat", "1"],
        "convert": ["convert", model, out],
        "sweep": ["sweep", model, "--targets", "70%", "--out-dir", str(folder / "family"), "--no-measure",
                  "--criterion", "l2"],
    }[command]  # fmt: skip


@cache
def _first_weight(base: str) -> str:
    return seed_models.built(base).graph.initializer[0].name


@cache
def plan_of(base: str) -> str | None:
    """The plan of a seed model; None if it can't be pruned."""
    import graphprune as gp
    from graphprune.errors import GraphPruneError

    try:
        return gp.plan(seed_models.built(base), target={"macs": 0.6}, criterion="l2").text()
    except GraphPruneError:
        return None


def _other_file(trial: Trial, rng: np.random.Generator, folder: Path) -> None:
    """Writes a good model and something else that is mutated."""
    model, good, out = (str(folder / name) for name in ("model.onnx", "good.onnx", "out.onnx"))
    kind = int(rng.integers(8))
    if kind < 4:
        data, what = documents.plan(plan_of(trial.base) or '{"schema_version": 1}', rng)
        (folder / "plan.json").write_bytes(data)
        trial.arguments = ["apply", str(folder / "plan.json"), model, out]
    elif kind < 6:
        data, what = documents.samples(dict(_samples(trial.base)), rng)
        (folder / "data.npz").write_bytes(data)
        given = ["--calibration", str(folder / "data.npz")]
        trial.arguments = ["prune", model, out, "--target", "macs=60%", "--criterion", "wanda", *given]
        if kind == 5:
            trial.arguments = ["check", good, model, "--data", str(folder / "data.npz")]
    elif kind == 6:
        data, what = documents.toml(documents.JOB, rng)
        (folder / "job.toml").write_bytes(data)
        trial.arguments = ["run", str(folder / "job.toml")]
    else:
        data, what = documents.toml(documents.DECLARATION, rng)
        (folder / "declare.toml").write_bytes(data)
        trial.arguments = ["inspect", model, "--declare", str(folder / "declare.toml")]
    trial.changes = [what]


@cache
def _samples(base: str) -> tuple[tuple[str, Any], ...]:
    model = seed_models.built(base)
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = 6
    return tuple(feeds_of(model).items())


# ---- running and judging ------------------------------------------------------------------------


@contextmanager
def captured(folder: Path) -> Iterator[tuple[Path, Path]]:
    """What this process prints goes to files, also what native code prints."""
    out, err = folder / "stdout", folder / "stderr"
    kept = [os.dup(1), os.dup(2)]
    try:
        for number, path in ((1, out), (2, err)):
            with path.open("wb") as file:
                os.dup2(file.fileno(), number)
        old = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        try:
            yield out, err
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            sys.stdout, sys.stderr = old
    finally:
        for number, descriptor in zip((1, 2), kept, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)


def carry_out(trial: Trial, folder: Path, *options: str) -> Trial:
    """Runs the command, with these options of all commands, and judges it."""
    work = folder.parent
    with captured(work) as (out, err):
        code = _exit_code([*options, *trial.arguments])
        if code == 70:  # once more, to see where
            _exit_code(["--traceback", *options, *trial.arguments])
    said = err.read_text(encoding="utf-8", errors="replace")
    try:
        trial.outcome = _judged(trial, folder, code or 0, out.read_bytes(), said)
    except Wrong as error:
        trial.outcome = f"! {error}"
        trial.detail = said[-3000:]
    return trial


def _exit_code(arguments: list[str]) -> Any:
    try:
        main(arguments)
    except SystemExit as exit_:
        return exit_.code
    except BaseException:
        traceback.print_exc()
    return None


class Wrong(Exception):
    """What a run should not do."""


def _judged(trial: Trial, folder: Path, code: Any, out: bytes, said: str) -> str:
    command = trial.arguments[0]
    _require(code in (0, *CODES), f"exit {code}: {_last_frame(said)}")
    now = _contents(folder)
    changed = [name for name, data in trial.files.items() if now.get(name) != data]
    _require(not changed, f"changed {changed}")
    new = sorted(set(now) - set(trial.files))
    if code:
        _require(not new or command == "sweep", f"left {new}")
        _require(PARAGRAPH.fullmatch(said) or command == "sweep", f"no paragraph: {said.splitlines()[:1]}")
        _require(is_printable(said), "control characters in the error")
        _require("Traceback" not in said, "a traceback")
        _require(not out or command in ("sweep", "check"), "an error, and something on stdout")
        return f"{command}: exit {code}"
    _require("Traceback" not in said, "a traceback")
    _require(is_printable(out.decode("utf-8", "replace") + said), "control characters on the terminal")
    _require(not any(".part" in n or ".tmp" in n for n in new), f"left {new}")
    if "report.html" in new:
        page = now["report.html"].decode("utf-8", "replace")
        _require("<script>alert" not in page and "<img src=x" not in page, "a name is markup in the report")
    if command in ("prune", "apply", "run") and "out.onnx" in new:
        return f"{command}: {_judge_model(trial, folder)}"
    return f"{command}: done"


def _judge_model(trial: Trial, folder: Path) -> str:
    from independent_judge import compare

    try:
        onnx.checker.check_model(str(folder / "out.onnx"))
    except Exception as error:
        # A file that the checker refuses already may pass through with the same flaw.
        try:
            onnx.checker.check_model(str(folder / "model.onnx"))
        except Exception:
            return "done, flawed as the input is"
        message = f"the checker refuses what was written: {str(error).splitlines()[0]}"
        raise Wrong(message) from error
    if "--exact-only" not in trial.arguments or seed_models.rounds(trial.base):
        return "done"
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    verdict = compare(folder / "model.onnx", folder / "out.onnx", plan)
    _require(not verdict.startswith("differs"), f"wrong output: {verdict}")
    return f"done, {verdict}"


def _require(holds: object, message: str) -> None:
    if not holds:
        raise Wrong(message)


def is_printable(text: str) -> bool:
    return not any(
        (ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 or c in "\u202e\u2066\u2067" for c in text
    )


def _last_frame(said: str) -> str:
    """Type and place of an unexpected error, to count by."""
    places = re.findall(r'File "[^"]*?([^/"]+)", line (\d+)', said)
    ours = re.findall(r'File "[^"]*?/((?:graphprune|passes|converters)/[^"]+)", line (\d+)', said)
    kinds = re.findall(r"error of our own: (\w+)", said)
    where = [f"{name}:{line}" for name, line in (ours[-1:] + places[-1:])]
    return " ".join([*kinds[-1:], *where])


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
