"""The source runs nothing that a file says: no eval, no pickle, no shell, no YAML with objects."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("graphprune", "passes", "converters", "models")
#: Calls that are never made, whatever their arguments.
NEVER = {
    "eval", "exec", "compile", "os.system", "os.popen", "pickle.load", "pickle.loads",
    "pickle.Unpickler", "marshal.loads", "shelve.open", "yaml.load", "yaml.unsafe_load", "tempfile.mktemp",
    "joblib.load", "dill.load", "cloudpickle.load", "subprocess.getoutput", "subprocess.getstatusoutput",
    "input", "os.execv", "os.spawnv", "xml.etree.ElementTree.fromstring", "shutil.unpack_archive",
}  # fmt: skip
#: Where torch may read whole pickles: behind `--trust`.
TRUSTED = {"converters/torch_pickle.py", "converters/carrying/torch_file.py"}


def sources() -> Iterator[Path]:
    for folder in FOLDERS:
        yield from sorted((ROOT / folder).rglob("*.py"))


def name_of(call: ast.Call) -> str:
    return ast.unparse(call.func)


def keywords(call: ast.Call) -> dict[str, str]:
    return {k.arg: ast.unparse(k.value) for k in call.keywords if k.arg is not None}


def faults(text: str, path: str) -> list[str]:
    """Calls that a file's content could misuse."""
    found = []
    for call in [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]:
        name, given = name_of(call), keywords(call)
        bad = name in NEVER
        bad |= given.get("shell", "False") != "False"
        bad |= given.get("allow_pickle", "False") != "False"
        bad |= name == "torch.load" and given.get("weights_only") != "True" and path not in TRUSTED
        bad |= name.endswith("load_model") and given.get("safe_mode", "True") != "True"
        if bad:
            found.append(f"{path}:{call.lineno} {name}")
    return found


def test_no_file_makes_such_a_call() -> None:
    found = [fault for path in sources() for fault in faults(path.read_text(), str(path.relative_to(ROOT)))]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "eval(x)", "pickle.loads(b)", "subprocess.run(x, shell=True)", "np.load(f, allow_pickle=True)",
        "torch.load(f)", "torch.load(f, weights_only=False)", "os.system('ls')", "yaml.load(t)",
        "keras.models.load_model(f, safe_mode=False)",
    ],
)  # fmt: skip
def test_each_would_be_found(text: str) -> None:
    assert faults(text, "x.py")


def test_networks_are_only_reached_through_launchers() -> None:
    """Nothing in the package opens a connection of its own, so a file can't make it ask for anything."""
    banned = {"socket", "http", "urllib.request", "requests", "ftplib", "smtplib", "telnetlib", "xmlrpc"}
    found = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{path}: {name}" for name in names if name in banned or name.split(".")[0] in banned]
    assert found == []
