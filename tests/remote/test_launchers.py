"""Launchers other than ssh, the joined file, and addresses."""

from __future__ import annotations

import ast
import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from remote_models import SMALL, left, saved, setup_of

from graphprune.device.protocol import Job
from graphprune.errors import DeviceError, UsageError
from graphprune.profile import profile
from graphprune.remote.address import parse
from graphprune.remote.bench import RemoteBench
from graphprune.remote.bundle import BOOTSTRAP, MODULES, script
from graphprune.remote.device import RemoteDevice
from graphprune.remote.link import Link, digest_of

HERE = f"cmd:{shlex.quote(sys.executable)}"


class TestJoinedFile:
    def test_it_is_python_3_8_and_imports_nothing_of_ours(self) -> None:
        tree = ast.parse(script(), feature_version=(3, 8))
        imported = {
            a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names
        }
        imported |= {(n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert imported - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}

    def test_all_modules_are_in_it(self) -> None:
        folder = Path(sys.modules["graphprune.runner.serving"].__file__ or "").parent
        assert {path.stem for path in folder.glob("*.py")} == {*MODULES, "__init__"}

    def test_no_name_is_defined_twice(self) -> None:
        defined = [n.name for n in ast.parse(script()).body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
        defined += [
            target.id
            for n in ast.parse(script()).body
            if isinstance(n, ast.Assign)
            for t in n.targets
            for target in (t.elts if isinstance(t, ast.Tuple) else [t])
            if isinstance(target, ast.Name)
        ]
        assert sorted(set(defined)) == sorted(defined)


def test_profile_through_a_launcher(model: Path) -> None:
    (run,) = profile([model], on=HERE, repeat=3, warmup=1).runs
    assert len(run.layers) == 2
    assert run.load_ms is not None


def test_a_folder_behind_a_link(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As /tmp is on some systems."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "link"))
    assert profile([model], on=HERE, repeat=1, warmup=1, ops=False).runs


def test_a_greeting_is_no_answer(model: Path, tmp_path: Path) -> None:
    launcher = tmp_path / "launcher"
    launcher.write_text(f'#!/bin/sh\necho welcome; echo "{{}}"; exec {sys.executable} "$@"\n')
    launcher.chmod(0o755)
    assert profile([model], on=f"cmd:{launcher}", repeat=1, warmup=1, ops=False).runs


def test_remote_device_does_what_planning_asks_for(there: Path) -> None:
    graph = saved(SMALL, there / "m.onnx").read_bytes()
    (there / "m.onnx").unlink()
    with RemoteDevice(HERE, threads=1) as device:
        assert device.identity.provider == "cpu"
        assert device.identity.threads == 1
        one, two = device.measure([Job(graph), Job(graph, batch=5)], seconds=0.01)
        assert len(one.medians) == len(two.medians) == 10
        assert set(device.node_times(Job(graph), seconds=0.01) or {}) == {"Relu_0", "Neg_1"}


def test_made_up_graphs_do_not_fill_the_disk(there: Path) -> None:
    graph = saved(SMALL, there / "m.onnx", unused=100_000).read_bytes()
    (there / "m.onnx").unlink()
    with RemoteDevice(f"{HERE}") as device:
        bench = device._bench
        assert isinstance(bench, RemoteBench)
        device.measure([Job(graph)], seconds=0.01)
        (digest,) = {bench.link.send_file(graph)}
        bench.forget([graph])
        with pytest.raises(DeviceError, match=f"no file {digest}"):
            bench.link.ask("outputs", model={"sha256": digest}, inputs=[])


def test_cuts_do_not_fill_the_disk(model: Path, tmp_path: Path) -> None:
    cut = saved(SMALL, tmp_path / "cut.onnx", unused=1000)
    with RemoteDevice(HERE) as device:
        device.measure([Job(model, comes_again=True), Job(cut)], seconds=0.01)
        bench = device._bench
        assert isinstance(bench, RemoteBench)
        assert bench.link._sent == {digest_of(model)}
        (times,) = device.measure([Job(cut)], seconds=0.01)  # sent once more
        assert times.medians


def test_errors_of_the_model_are_told_apart(model: Path, tmp_path: Path) -> None:
    with Link(parse(HERE)) as link:
        bench = RemoteBench(link)
        setup = setup_of(model)
        with pytest.raises(DeviceError, match=r"does not run on(.|\n)*--dim"):
            bench.outputs(setup, {"x": np.zeros((1, 5), np.float32)})
        with pytest.raises(DeviceError, match="cannot load the model"):
            link.ask("outputs", model={"sha256": link.send_file(b"no model")}, inputs=[])
        with pytest.raises(DeviceError, match=r"cannot do 'dance'"):
            link.ask("dance")
        assert set(bench.outputs(setup)) == {"y"}  # and it goes on


def test_names_lead_nowhere_else(model: Path, tmp_path: Path) -> None:
    with Link(parse(HERE)) as link:
        digest = link.send_file(model)
        with pytest.raises(DeviceError, match="leads out of the folder"):
            link.ask("alone", model={"files": {"../../x": digest}, "main": "../../x"}, inputs=[])


def test_damaged_transfer(tmp_path: Path) -> None:
    with Link(parse(HERE)) as link:
        number = link._send({"do": "put", "sha256": "0" * 64, "bytes": 3}, b"abc")
        with pytest.raises(DeviceError, match="arrived damaged"):
            link._wait(number, "sending", None, None)


def test_an_old_runner(tmp_path: Path, model: Path) -> None:
    launcher = tmp_path / "launcher"
    launcher.write_text("#!/bin/sh\necho '{\"graphprune-runner\": 0}'\ncat >/dev/null\n")
    launcher.chmod(0o755)
    with pytest.raises(DeviceError, match=r"of another version(.|\n)*protocol 0, this graphprune 1"):
        profile([model], on=f"cmd:{launcher}")


def test_a_launcher_that_says_nothing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphprune.remote.link._START_SECONDS", 0.3)
    with pytest.raises(DeviceError, match="does not answer"):
        profile([model], on="cmd:sh -c 'exec sleep 60' --")


def test_a_launcher_that_does_not_exist(model: Path) -> None:
    with pytest.raises(DeviceError, match="'/no/such/program' cannot be started"):
        profile([model], on="cmd:/no/such/program")


def test_a_launcher_that_fails(model: Path) -> None:
    with pytest.raises(DeviceError, match=r"runner does not start(.|\n)*out of luck"):
        profile([model], on="cmd:sh -c 'echo out of luck >&2; exit 3' --")


def test_silence_ends_the_runner(there: Path) -> None:
    """Its input stays open, but nobody says anything."""
    text = script().replace("SILENCE = 120", "SILENCE = 4").encode()
    process = subprocess.Popen(
        [sys.executable, "-c", BOOTSTRAP], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    settings = json.dumps({"folder": str(there)}).encode()
    process.stdin.write(b"%d\n" % len(text) + text + settings + b"\n")
    process.stdin.flush()
    hello = json.loads(process.stdout.readline())
    assert Path(hello["folder"]).parent == there
    assert process.wait(60) == 0
    assert left(there) == []
    process.stdin.close()
    process.stdout.close()


class TestAddresses:
    def test_ssh(self) -> None:
        text = "ssh://me@board:2222/mnt/big%20disk?python=/opt/a%20b/python&known_hosts=/a%20b&timeout=7"
        address = parse(text)
        command = address.command
        assert (address.target, address.folder, address.timeout) == ("board", "/mnt/big disk", 7)
        assert command[command.index("-p") + 1] == "2222"
        assert command[command.index("-l") + 1] == "me"
        assert 'UserKnownHostsFile="/a b"' in command
        assert "BatchMode=yes" in command
        assert "StrictHostKeyChecking=yes" in command
        assert command[-2] == "board"
        assert shlex.split(command[-1]) == ["exec", "/opt/a b/python", "-c", BOOTSTRAP]

    def test_hosts_are_as_they_are_written(self) -> None:
        """Names in ~/.ssh/config are told apart by capital letters."""
        for text, host in (("ssh://me@MyBoard:22/x", "MyBoard"), ("ssh://[fe80::A1]:22", "fe80::A1")):
            assert parse(text).command[-2] == parse(text).target == host

    def test_the_remote_shell_sees_no_quotes_of_its_own(self) -> None:
        assert "'" not in BOOTSTRAP
        assert "!" not in BOOTSTRAP
        assert "\n" not in BOOTSTRAP

    def test_docker(self) -> None:
        command = parse("docker:registry.local:5000/board:v1?python=python3.11").command
        assert command[:3] == ("docker", "run", "--rm")
        assert command[-4:] == ("python3.11", "registry.local:5000/board:v1", "-c", BOOTSTRAP)

    def test_cmd(self) -> None:
        assert parse("cmd:docker exec -i 'my box' python3").command[:4] == ("docker", "exec", "-i", "my box")

    @pytest.mark.parametrize(
        "text",
        [
            "", "board", "ssh:board", "ssh://", "ssh://-oProxyCommand=x", "ssh://a b", "ssh://-l@board",
            "ssh://me:secret@board", "ssh://board:port", "ssh://board?color=red", "ssh://board?timeout=soon",
            "docker:", "docker:--privileged", "cmd:", "cmd:'open", "adb:", "adb:-s", "adb:a;b", "http://board",
        ],
    )  # fmt: skip
    def test_others(self, text: str) -> None:
        with pytest.raises(UsageError, match="cannot read the device"):
            parse(text)
