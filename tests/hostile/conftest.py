"""Commands run in this process; an error is one paragraph that a terminal can show."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "property")]

from file_trial import PARAGRAPH, is_printable  # noqa: E402
from networks import NETWORKS  # noqa: E402

from graphprune.cli import main, progress  # noqa: E402

Refusal = Callable[..., str]


@pytest.fixture(autouse=True)
def no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes long, and says so on stderr, where errors are looked for."""
    monkeypatch.setattr(progress, "_INTERVAL", 3600.0)


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Refusal:
    """The message of a command that must fail with an exit code."""

    def run(*arguments: object, code: int = 1) -> str:
        with pytest.raises(SystemExit) as exit_:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        assert exit_.value.code == code, err
        assert out == ""
        assert PARAGRAPH.fullmatch(err), err
        assert is_printable(err)
        return err

    return run


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a command that succeeds prints."""

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as exit_:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        assert exit_.value.code in (0, None), err
        return out + err

    return run


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    """A network of two layers as a file."""
    onnx.save(NETWORKS["mlp"](), tmp_path / "mlp.onnx")
    return tmp_path / "mlp.onnx"
