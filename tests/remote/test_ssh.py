"""Measuring behind a real sshd: the work, and every way in which it can fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from remote_models import SLOW, SMALL, left, names, saved, setup_of, without_answers
from ssh_server import Server

from graphprune.errors import DeviceError
from graphprune.profile import profile
from graphprune.remote.address import parse
from graphprune.remote.bench import RemoteBench
from graphprune.remote.link import Link


def script(path: Path, line: str) -> Path:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return path


def test_profile(server: Server, model: Path, there: Path) -> None:
    on = server.address(there)
    report = profile([model, model], on=on, batch=[1, 3], repeat=6, warmup=2, threads=1)
    assert [run.inputs["x"] for run in report.runs] == [(1, 4)] * 2 + [(3, 4)] * 2
    assert [(pair.run, pair.reference_run) for pair in report.relative] == [(1, 0), (3, 2)]
    assert {op.op_type for op in report.runs[0].ops} == {"Relu", "Neg"}
    assert {layer.origins for layer in report.runs[0].layers} == {("h",), ("y",)}
    assert report.runs[0].peak_rss_bytes is not None
    assert report.on == on.partition("?")[0]
    assert report.runtime["onnxruntime"] == ort.__version__
    assert left(there) == []
    json.dumps(report.to_json())


def test_external_data_is_sent_once_and_outputs_are_right(
    server: Server, tmp_path: Path, there: Path
) -> None:
    weight = np.random.default_rng(0).standard_normal((4, 300)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "m",
        [onnx.helper.make_tensor_value_info("x", 1, ["N", 4])],
        [onnx.helper.make_tensor_value_info("y", 1, ["N", 300])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    proto = onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)])
    path = tmp_path / "with data.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    with Link(parse(server.address(there))) as link:
        bench = RemoteBench(link)
        (y,) = bench.outputs(setup_of(path), {"x": x}).values()
        np.testing.assert_allclose(y, x @ weight, rtol=1e-5)
        (folder,) = there.iterdir()
        first = without_answers(folder)
        assert set(bench.outputs(setup_of(path))) == {"y"}
        assert without_answers(folder) == first
    assert left(there) == []


def test_unknown_host_key(server: Server, model: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(DeviceError, match=r"host key of '127.0.0.1' is not known(.|\n)*known_hosts=FILE"):
        profile([model], on=server.address(known_hosts=str(empty)))


def test_changed_host_key(server: Server, model: Path, tmp_path: Path) -> None:
    kind, key, *_ = (server.folder / "stranger_key.pub").read_text().split()
    other = tmp_path / "other"
    other.write_text(f"[127.0.0.1]:{server.port} {kind} {key}\n")
    with pytest.raises(DeviceError, match=r"host key of '127.0.0.1' is not the one that is known"):
        profile([model], on=server.address(known_hosts=str(other)))


def test_known_hosts_as_an_argument(server: Server, model: Path, tmp_path: Path) -> None:
    on = f"ssh://127.0.0.1:{server.port}?identity={server.folder / 'user_key'}&python={sys.executable}"
    runs = profile([model], on=on, known_hosts=str(server.known_hosts), repeat=1, warmup=1, ops=False).runs
    assert len(runs) == 1
    with pytest.raises(DeviceError, match="host key"):
        profile([model], on=on, known_hosts=str(tmp_path / "absent"), repeat=1)


def test_unknown_user_key(server: Server, model: Path) -> None:
    on = server.address(identity=str(server.folder / "stranger_key"))
    with pytest.raises(DeviceError, match=r"nobody in without a password(.|\n)*ssh-copy-id"):
        profile([model], on=on)


def test_nobody_listens(server: Server, model: Path) -> None:
    on = server.address().replace(f":{server.port}", ":1")
    with pytest.raises(DeviceError, match=r"'127.0.0.1' cannot be reached(.|\n)*refused"):
        profile([model], on=on)


def test_no_python(server: Server, model: Path) -> None:
    with pytest.raises(DeviceError, match=r"no Python on '127.0.0.1'(.|\n)*\?python="):
        profile([model], on=server.address(python="/nowhere/python3"))


def test_old_python(server: Server, model: Path, tmp_path: Path) -> None:
    """A Python whose version says 3.6."""
    code = "import sys; sys.version_info = (3, 6); sys.version = '3.6.9 (x)'; exec(sys.argv[2])"
    python = script(tmp_path / "python", f'exec {sys.executable} -c "{code}" "$@"')
    with pytest.raises(DeviceError, match=r"older than 3.8(.|\n)*python 3.6.9"):
        profile([model], on=server.address(python=python))


def test_no_onnxruntime(server: Server, model: Path, tmp_path: Path, there: Path) -> None:
    python = script(tmp_path / "python", f'exec {sys.executable} -S "$@"')
    with pytest.raises(DeviceError, match=r"no onnxruntime on '127.0.0.1'(.|\n)*pip install onnxruntime"):
        profile([model], on=server.address(there, python=python))
    assert left(there) == []


def alien_elf(path: Path) -> Path:
    """A header of an ELF file for 64-bit Arm or, on such a machine, for x86-64."""
    machine = 62 if os.uname().machine == "aarch64" else 183
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + (3).to_bytes(2, "little") + machine.to_bytes(2, "little")
    path.write_bytes(header + (1).to_bytes(4, "little") + bytes(2000))
    path.chmod(0o755)
    return path


def test_python_of_another_architecture(server: Server, model: Path, tmp_path: Path) -> None:
    on = server.address(python=alien_elf(tmp_path / "python"))
    with pytest.raises(DeviceError, match=r"Python of '127.0.0.1' is built for another architecture"):
        profile([model], on=on)


def test_onnxruntime_of_another_architecture(server: Server, model: Path, tmp_path: Path) -> None:
    package = tmp_path / "site" / "onnxruntime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from onnxruntime import core\n")
    alien_elf(package / "core.so")
    python = script(tmp_path / "python", f'PYTHONPATH={package.parent} exec {sys.executable} "$@"')
    with pytest.raises(DeviceError, match=r"onnxruntime of '127.0.0.1' is built for another architecture"):
        profile([model], on=server.address(python=python))


def test_full_disk(server: Server, tmp_path: Path, there: Path) -> None:
    """A limit on the size of files there stands in for it."""
    python = script(tmp_path / "python", f'ulimit -f 200; exec {sys.executable} "$@"')
    path = saved(SMALL, tmp_path / "large.onnx", unused=1_000_000)
    with pytest.raises(DeviceError, match=r"disk of '127.0.0.1' is full(.|\n)*sending a file of 4.0 MB"):
        profile([path], on=server.address(there, python=python))
    assert left(there) == []


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to mount a small disk")
def test_really_full_disk(server: Server, tmp_path: Path, there: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", there], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("cannot mount here")
    try:
        path = saved(SMALL, tmp_path / "large.onnx", unused=200_000)
        with pytest.raises(DeviceError, match=r"disk of '127.0.0.1' is full(.|\n)*No space left"):
            profile([path], on=server.address(there))
        assert left(there) == []
        (there / "filler").write_bytes(bytes(290 * 1024))
        with pytest.raises(DeviceError, match=r"disk of '127.0.0.1' is full"):
            profile([path], on=server.address(there))
        assert names(there) == ["filler"]
    finally:
        subprocess.run(["umount", there], check=True)


def test_link_drops_in_the_middle(server: Server, tmp_path: Path, there: Path) -> None:
    slow = saved(SLOW, tmp_path / "slow.onnx")
    dropped: list[int] = []

    def drop(done: int, rounds: int) -> None:
        threading.Thread(target=lambda: dropped.append(server.drop_connections())).start()

    with pytest.raises(
        DeviceError, match=r"link to '127.0.0.1' was lost(.|\n)*measuring(.|\n)*nothing was written"
    ):
        profile([slow], on=server.address(there), repeat=4000, warmup=1, progress=drop)
    assert dropped[0] > 0
    assert left(there) == []


def test_folders_of_killed_runners_go_with_the_next_one(server: Server, model: Path, there: Path) -> None:
    link = Link(parse(server.address(there)))
    (folder,) = there.iterdir()
    pids = subprocess.run(["fuser", folder / "lock"], capture_output=True, text=True).stdout.split()
    if not pids:
        link.close()
        pytest.skip("needs fuser (package psmisc)")
    os.kill(int(pids[0]), 9)
    with pytest.raises(DeviceError, match="was lost"):
        link.ask("info")
    link.close()
    assert names(there) == [folder.name]
    with Link(parse(server.address(there))):
        (other,) = there.iterdir()
        assert other != folder
    assert left(there) == []
