"""Commands run in this process; every error has the form that the interface page promises."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest
from networks import NETWORKS

from graphprune.cli import main, progress

FOUR_LINES = re.compile(
    r"graphprune: \S[^\n]*\n(  where:   \S[^\n]*\n)?(  because: \S[^\n]*\n)?(  try:     \S[^\n]*\n)?"
)


def refuse_constant(text: str) -> None:
    message = f"{text} is no JSON"
    raise ValueError(message)


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """The one document on stdout, in strict JSON."""
        return json.loads(self.out, parse_constant=refuse_constant)

    def error(self, code: int) -> str:
        """The message, once its form has been checked; nothing else was printed."""
        assert (self.code, self.out) == (code, ""), self
        assert FOUR_LINES.fullmatch(self.err), self.err
        assert "Traceback" not in self.err
        return self.err


Cli = Callable[..., Done]


@pytest.fixture(autouse=True)
def no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes long, and says so on stderr, where errors are looked for."""
    monkeypatch.setattr(progress, "_INTERVAL", 3600.0)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*arguments: object) -> Done:
        with pytest.raises(SystemExit) as exit_:
            main([str(a) for a in arguments])
        captured = capsys.readouterr()
        code = exit_.value.code
        return Done(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run


@pytest.fixture
def save(tmp_path: Path) -> Callable[[str], Path]:
    """Writes one of the tiny networks and returns its path."""

    def write(name: str) -> Path:
        path = tmp_path / f"{name}.onnx"
        onnx.save(NETWORKS[name](), path)
        return path

    return write
