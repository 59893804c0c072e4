"""Plans, samples, jobs, declarations and profiles that are not what they say."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import document_mutations
import numpy as np
import pytest

import graphprune as gp
from graphprune.cli import main
from graphprune.device.profiles import Profile
from graphprune.device.store import read_json
from graphprune.errors import ModelError, PlanError, UsageError
from graphprune.limits import max_bytes


@pytest.fixture
def plan(mlp: Path) -> dict[str, Any]:
    return gp.plan(str(mlp), target={"macs": 0.6}, criterion="l2").to_json()


def applied(refusal: Any, mlp: Path, document: Any) -> str:
    path = mlp.parent / "plan.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    before = sorted(mlp.parent.iterdir())
    error: str = refusal("apply", path, mlp, mlp.parent / "out.onnx")
    assert sorted(mlp.parent.iterdir()) == before
    return error


@pytest.mark.parametrize(
    "keep",
    [
        [0, 1, 99], [-1, 0], [0, 0, 1], [1, 0], [1 << 70], ["0"], [0.5], [True], [None], [[0]], {"0": 0},
        "0", None, [-(1 << 63)], list(range(100_000)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("part", ["parameters", "groups"])
def test_positions_that_are_none(refusal, mlp: Path, plan: dict[str, Any], part: str, keep: Any) -> None:  # type: ignore[no-untyped-def]
    plan[part][0]["keep"] = keep
    assert "plan" in applied(refusal, mlp, plan) or part == "parameters"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("axis", -1), ("axis", 7), ("axis", 1 << 70), ("size", -5), ("size", 1 << 70), ("size", 7),
        ("name", "z"),
        ("name", "\ud800"), ("name", ""), ("uses", ["nobody:0"]), ("uses", [""]), ("groups", 1),
    ],
)  # fmt: skip
def test_entries_of_another_model(refusal, mlp: Path, plan: dict[str, Any], key: str, value: Any) -> None:  # type: ignore[no-untyped-def]
    plan["parameters"][0][key] = value
    applied(refusal, mlp, plan)


def test_the_same_entry_twice(refusal, mlp: Path, plan: dict[str, Any]) -> None:  # type: ignore[no-untyped-def]
    second = dict(plan["parameters"][0])
    second["keep"] = second["keep"][:-1]
    plan["parameters"].append(second)
    applied(refusal, mlp, plan)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 400, "9" * 5000])
def test_numbers_that_are_none(refusal, mlp: Path, plan: dict[str, Any], number: str) -> None:  # type: ignore[no-untyped-def]
    text = json.dumps(plan).replace('"macs": 0.6', f'"macs": {number}', 1)
    assert number in text
    applied(refusal, mlp, text)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000, '{"a":' * 100_000, "", "null", "\ufeff{}", "true", '"x"', "{} {}",
        '{"schema_version": 1, "schema_version": 2}', "!!python/object/apply:os.system [ls]",
    ],
)  # fmt: skip
def test_texts_that_are_no_plan(refusal, mlp: Path, text: str) -> None:  # type: ignore[no-untyped-def]
    applied(refusal, mlp, text)


def test_a_plan_that_is_a_pipe_or_binary(refusal, mlp: Path) -> None:  # type: ignore[no-untyped-def]
    assert "no regular file" in refusal("apply", "/dev/zero", mlp, mlp.parent / "o.onnx")
    (mlp.parent / "p.json").write_bytes(b"\xff\xfe\x00" * 100)
    refusal("apply", mlp.parent / "p.json", mlp, mlp.parent / "o.onnx")


# ---- samples ------------------------------------------------------------------------------------


def archive(**members: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return data.getvalue()


def npy(array: Any, **options: Any) -> bytes:
    data = io.BytesIO()
    np.save(data, array, **options)
    return data.getvalue()


class Evil:
    """Runs something when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("/tmp/graphprune-was-here"),)


def announcing(shape: str, descr: str = "'<f4'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def in_the_directory(data: bytes, offset: int, value: int) -> bytes:
    """The archive with two other bytes at a place of its first central entry."""
    at = data.index(b"PK\x01\x02") + offset
    return data[:at] + value.to_bytes(2, "little") + data[at + 2 :]


PLAIN = archive(x=npy(np.ones((2, 6), np.float32)))
SAMPLES = {
    "packed by an unknown method": in_the_directory(PLAIN, 10, 97),
    "encrypted": in_the_directory(PLAIN, 8, 1),
    "pickled": archive(x=npy(np.array([Evil()], object), allow_pickle=True)),
    "a pickle": pickle.dumps({"x": Evil()}),
    "named a pickle": archive(x=pickle.dumps(Evil())),
    "announces much": archive(x=announcing("(1000000, 1000000)")),
    "negative": archive(x=announcing("(-4, -6)")),
    "overflows": archive(x=announcing("(9223372036854775807, 9223372036854775807)")),
    "code in the header": archive(x=announcing("(__import__('os').system('true'),)")),
    "objects announced": archive(x=announcing("(2, 6)", "'|O'")),
    "deep header": archive(x=announcing("(" * 40 + ")" * 40)),
    "no shape": archive(x=announcing("6")),
    "empty": archive(),
    "a path": archive(**{"../../x": npy(np.ones((2, 6), np.float32))}),
    "no archive": b"PK\x03\x04" + bytes(100),
    "an odd name": archive(**{"\x1b[2J": npy(np.ones((2, 6), np.float32))}),
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_samples_that_are_none(refusal, mlp: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    data = mlp.parent / "d.npz"
    data.write_bytes(SAMPLES[kind])
    out = mlp.parent / "o.onnx"
    refusal("prune", mlp, out, "--target", "macs=60%", "--calibration", data)
    with pytest.raises(SystemExit) as exit_:
        main(["check", str(mlp), str(mlp), "--data", str(data)])
    assert exit_.value.code in (1, 2)
    assert not out.exists()
    assert not Path("/tmp/graphprune-was-here").exists()


# ---- limits -------------------------------------------------------------------------------------


def test_max_bytes_is_about_all_that_is_read(refusal, mlp: Path) -> None:  # type: ignore[no-untyped-def]
    bomb = mlp.parent / "d.npz"
    bomb.write_bytes(archive(x=npy(np.zeros((100_000, 6), np.float32))))
    assert bomb.stat().st_size < 10_000
    out = mlp.parent / "o.onnx"
    common = ("--target", "macs=60%", "--calibration", bomb)
    assert "--max-bytes allows 100000" in refusal("--max-bytes", "100kB", "prune", mlp, out, *common)
    assert "is too large" in refusal("--max-bytes", "100kB", "check", mlp, mlp, "--data", bomb)
    assert "model file" in refusal("--max-bytes", "100", "inspect", mlp)
    assert "model file" in refusal("--max-bytes", "100", "profile", mlp)
    (mlp.parent / "p.json").write_text(" " * 4000 + "{}")
    assert "p.json' is too large" in refusal("--max-bytes", "3kB", "apply", mlp.parent / "p.json", mlp, out)
    (mlp.parent / "j.toml").write_text("# " * 4000)
    assert "is too large" in refusal("--max-bytes", "3kB", "run", mlp.parent / "j.toml")
    assert "'much' is no size" in refusal("--max-bytes", "much", "inspect", mlp, code=2)


def test_max_bytes_ends_with_the_command(mlp: Path, refusal, printed) -> None:  # type: ignore[no-untyped-def]
    refusal("--max-bytes", "100", "inspect", mlp)
    assert printed("inspect", mlp)
    with max_bytes(100), pytest.raises(ModelError):
        gp.load(mlp)
    gp.load(mlp)


# ---- TOML, profiles -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 5000, "a." * 5000 + "b = 1", "[" + "a." * 3000 + "b]\n", "\x00", "a = 1e999",
        '{"a": 1}',
        "!!python/object/apply:os.system [ls]", "jobs = 1", "[jobs]\na = 1", "[model]\npath = 1",
    ],
)  # fmt: skip
def test_toml_that_is_none(refusal, mlp: Path, text: str) -> None:  # type: ignore[no-untyped-def]
    path = mlp.parent / "t.toml"
    path.write_text(text)
    refusal("run", path, code=2)
    refusal("inspect", mlp, "--declare", path, code=2)


def test_every_mutation_of_a_job_is_refused_or_done(mlp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(40):
        text, _ = document_mutations.toml(document_mutations.JOB, np.random.default_rng(seed))
        (mlp.parent / "j.toml").write_bytes(text)
        with pytest.raises(SystemExit) as exit_:
            main(["run", str(mlp.parent / "j.toml")])
        assert exit_.value.code in (0, None, 1, 2, 4), (seed, capsys.readouterr().err)


@pytest.mark.parametrize("value", [None, [], {}, "x", -1, [[]], [1], [{"kind": 1}], 10**400])
@pytest.mark.parametrize(
    "key", ["curves", "date", "quick", "tables", "device", "flags", "threads", "schema_version"]
)
def test_device_profiles_of_any_content(tmp_path: Path, key: str, value: Any) -> None:
    document = {
        "schema_version": 1, "device": "d", "flags": [], "runtime": "r", "version": "1", "provider": "cpu",
        "threads": 1, "date": "now", "quick": False, "curves": [], "tables": {}, key: value,
    }  # fmt: skip
    (tmp_path / "p.json").write_text(json.dumps(document))
    with contextlib.suppress(ModelError):
        Profile.load(tmp_path / "p.json").to_json()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": NaN}', "\x00"])
def test_a_cache_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    assert read_json(tmp_path / "c.json") is None


def test_errors_of_the_interface_are_ours(mlp: Path, plan: dict[str, Any]) -> None:
    plan["target"]["macs"] = float("inf")
    with pytest.raises(PlanError):
        gp.Plan.from_json(plan)
    with pytest.raises(UsageError):
        gp.analyze(gp.load(mlp), declarations={"a.B": 5})  # type: ignore[dict-item]
