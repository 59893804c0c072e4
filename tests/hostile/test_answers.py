"""A device that answers what no runner answers: an error about the device, whatever it says."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from graphprune.remote.answers import is_answer

RUN = {"milliseconds": [1.0], "medians": [1.0], "joules": {}, "warmup": 5, "stable": True}
INFO = {
    "python": "3", "numpy": "2", "onnxruntime": "1", "providers": ["CPUExecutionProvider"], "processor": "p",
    "features": [], "card": None, "system": "Linux", "machine": "m", "cores": 1,
}  # fmt: skip
MEASURED = {"runs": [RUN], "conditions": {"mhz": [], "celsius": [], "throttled": 0}}
ALONE = {"idle": 1, "peak": 2, "card": None, "load_ms": 1.0}
RIGHT = {"info": INFO, "measure": MEASURED, "alone": ALONE, "trace": {"nodes": []}, "outputs": {"names": []}}

#: A runner that says what it is told to.
RUNNER = """
import json, sys
answers = json.loads({answers!r})
data = sys.stdin.buffer
size = int(data.readline())
data.read(size)
data.readline()
def say(line):
    sys.stdout.write(line + "\\n")
    sys.stdout.flush()
say(answers["hello"])
while True:
    line = data.readline()
    if not line:
        break
    if not line.strip():
        continue
    ask = json.loads(line)
    if ask["do"] == "put":
        data.read(ask["bytes"])
        say(json.dumps(dict(id=ask["id"], result=dict())))
        continue
    said = answers.get(ask["do"], "null")
    say(said.replace("@id", str(ask["id"])))
"""


@pytest.fixture
def profiled(mlp: Path, refusal, printed):  # type: ignore[no-untyped-def]
    """What `profile` says of a device that gives these answers."""

    def run(fails: bool = True, **said: str) -> str:
        answers = {"hello": json.dumps({"graphprune-runner": 3}), **said}
        for do, result in RIGHT.items():
            answers.setdefault(do, '{"id": @id, "result": ' + json.dumps(result) + "}")
        path = mlp.parent / "launcher.py"
        path.write_text(RUNNER.format(answers=json.dumps(answers)))
        on = f"cmd:{shlex.quote(sys.executable)} {shlex.quote(str(path))}"
        run_it = refusal if fails else printed
        return str(run_it("profile", mlp, "--on", on, "--repeat", 1))

    return run


def protocol() -> int:
    from graphprune.runner.serving import PROTOCOL

    return int(PROTOCOL)


def hello(**fields: Any) -> str:
    return json.dumps({"graphprune-runner": protocol(), **fields})


def test_right_answers_are_taken(profiled) -> None:  # type: ignore[no-untyped-def]
    assert "mlp.onnx" in profiled(fails=False, hello=hello())


@pytest.mark.parametrize(
    "result",
    [
        "1", "[]", "null", "{}", '{"runs": []}', '{"runs": [{}]}',
        json.dumps({**MEASURED, "runs": [RUN, RUN]}),
        json.dumps({**MEASURED, "runs": [{**RUN, "milliseconds": []}]}),
        json.dumps({**MEASURED, "runs": [{**RUN, "milliseconds": ["1"]}]}),
        json.dumps({**MEASURED, "runs": [{**RUN, "medians": [-1.0]}]}),
        json.dumps({**MEASURED, "runs": [{**RUN, "medians": [1e300]}]}),
        json.dumps({**MEASURED, "conditions": None}),
    ],
)  # fmt: skip
def test_measurements_that_are_none(profiled, result: str) -> None:  # type: ignore[no-untyped-def]
    error = profiled(hello=hello(), measure='{"id": @id, "result": ' + result + "}")
    assert "the answer of" in error


@pytest.mark.parametrize(
    "line",
    [
        '{"id": @id, "error": 1}', '{"id": @id, "error": {"kind": [], "text": {}}}',
        '{"id": @id, "error": {"kind": "run", "text": "\\u001b[2J\\nx"}}',
        '{"id": @id, "result": {}, "bytes": -1}', '{"id": @id, "result": {}, "bytes": "9"}',
        '{"id": @id, "result": {}, "bytes": 99999999999999}',
    ],
)  # fmt: skip
def test_lines_that_no_runner_writes(profiled, line: str) -> None:  # type: ignore[no-untyped-def]
    profiled(hello=hello(), info=line)


@pytest.mark.parametrize("noise", ['{"id": @id, "progress": "x"}', "[" * 50_000, "NaN", "\\u0000"])
def test_noise_before_an_answer(profiled, noise: str) -> None:  # type: ignore[no-untyped-def]
    right = '{"id": @id, "result": ' + json.dumps(INFO) + "}"
    profiled(fails=False, hello=hello(), info=noise + "\n" + right)


@pytest.mark.parametrize(
    "said", [{"graphprune-runner": "x"}, {"graphprune-runner": None}, {"graphprune-runner": 99}]
)
def test_other_protocols(profiled, said: dict[str, Any]) -> None:  # type: ignore[no-untyped-def]
    assert "of another version" in profiled(hello=json.dumps(said))


@pytest.mark.parametrize("do", RIGHT)
def test_each_answer_has_its_form(do: str) -> None:
    right = RIGHT[do]
    assert is_answer(do, right)
    for key in right:
        if do == "info" and key in ("system", "machine", "cores"):
            continue
        assert not is_answer(do, {**right, key: {"a": object}}) or key == "card"
        assert not is_answer(do, {k: v for k, v in right.items() if k != key})
    assert not is_answer(do, None)
