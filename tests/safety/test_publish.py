"""At every moment an output is the old one or the new one, with all its weights; the next run works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from networks import NETWORKS

from graphprune.errors import ModelError
from graphprune.model import Model, load
from graphprune.storage import publish as publishing
from graphprune.storage.text_files import write_text
from graphprune.storage.workspace import reserved

CHANGES = ("open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir")


class Killed(BaseException):
    """From here on the process does nothing any more."""


class Steps:
    """Counts operations on files below a folder; from one of them on, none is done any more."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.last, self.count = -1, 0
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None or event not in CHANGES or not str(arguments[0]).startswith(str(self.folder)):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        self.count += 1
        if 0 <= self.last < self.count:
            raise Killed


_steps = Steps()


@pytest.fixture
def steps() -> Iterator[Steps]:
    yield _steps
    _steps.folder, _steps.last = None, -1


def saved(folder: Path, scale: float, *, external: bool) -> Model:
    """A model with weights of its own, stored in one file or two."""
    proto = NETWORKS["mlp"]()
    for tensor in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array((array * scale).astype(array.dtype), tensor.name))
    folder.mkdir(exist_ok=True)
    path = folder / f"in{scale}.onnx"
    onnx.save(proto, path, save_as_external_data=external, location=f"{path.name}.data", size_threshold=0)
    return load(path)


def weights(path: Path) -> dict[str, bytes]:
    """What a model holds; what onnx reads is what others read."""
    model = onnx.load(path)
    return {t.name: onnx.numpy_helper.to_array(t).tobytes() for t in model.graph.initializer}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("old_external", "new_external", "linked"),
    [
        (True, True, False),
        (True, True, True),
        (True, False, False),
        (False, True, False),
        (False, False, False),
    ],
    ids=[
        "data to data",
        "data to data, linked",
        "data to one file",
        "one file to data",
        "one file to one file",
    ],
)
def test_killed_at_any_step(
    tmp_path: Path, steps: Steps, monkeypatch, old_external: bool, new_external: bool, linked: bool
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(os, "fsync", lambda file: None)
    if linked:
        monkeypatch.setattr(publishing, "_COPIED", -1)
    old = saved(tmp_path / "old", 1.0, external=old_external)
    new = saved(tmp_path / "new", 2.0, external=new_external)
    folder = tmp_path / "out"
    out = folder / "out.onnx"
    found = []
    for step in range(100):
        folder.mkdir()
        old.save(out)
        wanted = [weights(out)]
        steps.folder, steps.last, steps.count = folder, step, 0
        try:
            new.save(out)
        except Killed:
            pass
        finally:
            steps.folder = None
        killed = steps.count > step
        (tmp_path / "whole").mkdir(exist_ok=True)
        new.save(tmp_path / "whole" / "out.onnx")
        wanted.append(weights(tmp_path / "whole" / "out.onnx"))
        found.append(wanted.index(readable(out, linked)))
        new.save(out)  # the next run
        assert weights(out) == wanted[1]
        assert names(folder) == ["out.onnx", "out.onnx.data"] if new_external else ["out.onnx"]
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        if not killed:
            break
    assert found == sorted(found), "once it is the new one it stays the new one"
    assert (found[0], found[-1]) == (0, 1)
    assert len(found) > 6


def readable(out: Path, linked: bool) -> dict[str, bytes]:
    """Of an output that may not have its final names yet."""
    if not linked:
        return weights(out)
    model = onnx.load(out, load_external_data=False)  # onnx itself refuses files with two names
    for tensor in model.graph.initializer:
        if tensor.external_data:
            place = {entry.key: entry.value for entry in tensor.external_data}
            data = (out.parent / place["location"]).read_bytes()
            start = int(place["offset"])
            tensor.raw_data = data[start : start + int(place["length"])]
            tensor.data_location = onnx.TensorProto.DEFAULT
    return {t.name: onnx.numpy_helper.to_array(t).tobytes() for t in model.graph.initializer}


def test_what_a_killed_run_left_is_named_and_goes(tmp_path: Path, caplog: Any) -> None:
    out = tmp_path / "out.onnx"
    folder = tmp_path / ".out.onnx.graphprune"
    folder.mkdir()
    (folder / "lock").write_bytes(b"graphprune, process 1")
    (folder / "out.onnx.data").write_bytes(b"half")
    saved(tmp_path / "new", 2.0, external=False).save(out)
    (record,) = caplog.records
    assert str(folder) in record.getMessage()
    assert "out.onnx.data" in record.getMessage()
    assert names(tmp_path) == ["new", "out.onnx"]


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    model = saved(tmp_path / "new", 2.0, external=False)
    for name, text in (("notes.txt", "mine"), ("lock", "something else")):
        folder = tmp_path / name / ".out.onnx.graphprune"
        folder.mkdir(parents=True)
        (folder / name).write_text(text)
        with pytest.raises(ModelError, match="taken by something that is not ours"):
            model.save(tmp_path / name / "out.onnx")
        assert (folder / name).read_text() == text
        assert names(folder.parent) == [".out.onnx.graphprune"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_that_somebody_put_there_are_not_followed(tmp_path: Path) -> None:
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "out.onnx"
    elsewhere.mkdir()
    (tmp_path / ".out.onnx.graphprune").symlink_to(elsewhere)
    with pytest.raises(ModelError, match="not ours"):
        saved(tmp_path / "new", 2.0, external=False).save(out)
    assert list(elsewhere.iterdir()) == []


HOLDER = """
import sys
from pathlib import Path
from graphprune.storage.workspace import reserved
with reserved(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_run_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    model = saved(tmp_path / "new", 2.0, external=False)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ModelError, match="another run is writing") as error:
            model.save(out)
        assert f"process {holder.pid} holds its lock" in str(error.value)
        model.save(tmp_path / "other.onnx")
        holder.kill()  # its lock ends with it
        holder.wait()
        model.save(out)
    assert names(tmp_path) == ["new", "other.onnx", "out.onnx"]


def test_another_thread_is_another_run(tmp_path: Path) -> None:
    out, said = tmp_path / "out.onnx", []
    model = saved(tmp_path / "new", 2.0, external=False)

    def other() -> None:
        with pytest.raises(ModelError, match="another run is writing") as error:
            model.save(out)
        said.append(str(error.value))

    with reserved(out):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        model.save(out)  # the same thread goes on
    assert len(said) == 1
    assert names(tmp_path) == ["new", "out.onnx"]


def test_old_data_go_where_the_new_model_needs_none(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    saved(tmp_path / "old", 1.0, external=True).save(out)
    (tmp_path / "out.onnx.database").write_text("mine")
    saved(tmp_path / "new", 2.0, external=False).save(out)
    assert names(tmp_path) == ["new", "old", "out.onnx", "out.onnx.database"]


def test_data_that_are_read_stay(tmp_path: Path) -> None:
    """The old output, loaded, is what the new one is made of."""
    out = tmp_path / "out.onnx"
    saved(tmp_path / "old", 1.0, external=True).save(out)
    before = weights(out)
    loaded = load(out)
    with pytest.raises(ModelError, match="still in use"):
        loaded.save(out)
    assert weights(out) == before


def test_an_index_and_its_files_change_together(tmp_path: Path, steps: Steps) -> None:
    """Weights in several safetensors files: the index names them, old and new have the same names."""

    def written(folder: Path, text: str) -> None:
        folder.mkdir()
        (folder / "a.safetensors").write_text(text)
        index = {"metadata": {"of": text}, "weight_map": {"w": "a.safetensors"}}
        (folder / "m.safetensors.index.json").write_text(json.dumps(index))

    target = tmp_path / "m.safetensors.index.json"
    found = []
    for step in range(100):
        for path in tmp_path.iterdir():
            path.unlink()
        for text in ("old", "new"):
            with reserved(target) as folder:
                written(folder / "made", text)
                for path in (folder / "made").iterdir():
                    path.rename(folder / path.name)
                steps.folder, steps.last, steps.count = (
                    (tmp_path, step, 0) if text == "new" else (None, -1, 0)
                )
                try:
                    publishing.publish(folder, target, ["a.safetensors"])
                except Killed:
                    pass
                finally:
                    steps.folder = None
                index = json.loads(target.read_text())
                beside = tmp_path / index["weight_map"]["w"]
                assert beside.read_text() == index["metadata"]["of"]
        found.append(index["metadata"]["of"])
        with reserved(target):
            pass
        assert names(tmp_path) == ["a.safetensors", target.name]
        assert (tmp_path / "a.safetensors").read_text() == found[-1]
        if steps.count <= step:
            break
    assert found == sorted(found, reverse=True)
    assert {"old", "new"} == set(found)


@pytest.mark.parametrize("what", ["folder", "pipe"])
def test_no_file_takes_the_place_of_something_else(tmp_path: Path, what: str) -> None:
    """Refused before the old output reads its weights from anywhere else."""
    out, place = tmp_path / "out.onnx", tmp_path / "out.onnx.data"
    saved(tmp_path / "old", 1.0, external=False).save(out)
    before = weights(out)
    place.mkdir() if what == "folder" else os.mkfifo(place)
    for _ in range(2):
        with pytest.raises(ModelError, match="cannot write") as error:
            saved(tmp_path / "new", 2.0, external=True).save(out)
        assert f"'out.onnx.data' is a {'folder' if what == 'folder' else 'device'}" in str(error.value)
    assert weights(out) == before
    assert place.is_dir() if what == "folder" else place.is_fifo()
    assert names(tmp_path) == ["new", "old", "out.onnx", "out.onnx.data"]


@pytest.mark.skipif(os.name == "nt", reason="no users there")
def test_file_systems_that_give_files_to_others(tmp_path: Path, monkeypatch: Any) -> None:
    """Network and FAT file systems say that what was made just now is somebody else's."""
    out, text = tmp_path / "out.onnx", tmp_path / "plan.json"
    model = saved(tmp_path / "new", 2.0, external=True)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    model.save(out)
    write_text(text, "a text", "the plan")
    assert weights(out) == weights(tmp_path / "new" / "in2.0.onnx")
    assert text.read_text() == "a text"
    assert names(tmp_path) == ["new", "out.onnx", "out.onnx.data", "plan.json"]


@pytest.mark.skipif(os.name == "nt", reason="no users there")
def test_files_of_others_are_not_written_to(tmp_path: Path, monkeypatch: Any) -> None:
    text, trap = tmp_path / "plan.json", tmp_path / ".plan.json.0.graphprune"
    trap.write_text("theirs")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    write_text(text, "a text", "the plan")
    assert (text.read_text(), trap.read_text()) == ("a text", "theirs")


def test_an_output_nobody_can_look_into_keeps_its_data(tmp_path: Path, monkeypatch: Any) -> None:
    """A run was killed while the output read from its folder; then the disk fails for a moment."""
    out = tmp_path / "out.onnx"
    saved(tmp_path / "old", 1.0, external=True).save(out)
    new = saved(tmp_path / "new", 2.0, external=True)

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "_settle", killed)
        with pytest.raises(Killed):
            new.save(out)
    wanted = weights(tmp_path / "new" / "in2.0.onnx")
    assert weights(out) == wanted

    def failing(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(onnx, "load", failing)
        with pytest.raises(ModelError, match="Input/output"):
            new.save(out)
    assert weights(out) == wanted
    new.save(out)
    assert weights(out) == wanted
    assert names(tmp_path) == ["new", "old", "out.onnx", "out.onnx.data"]
