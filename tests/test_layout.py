"""The repository keeps its own rules: packages, sizes, names, imports, docstrings."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from pathlib import Path

import pytest

import graphprune

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
FOLDERS = ("graphprune", "passes", "converters", "models")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
FRAMEWORKS = {"torch", "transformers", "tensorflow", "keras", "tf2onnx", "sklearn", "skl2onnx"}
FRAMEWORKS |= {"jax", "jax2onnx", "flax", "equinox"}


def package_of(folder: Path) -> str:
    parts = folder.relative_to(ROOT).parts
    return ".".join(parts if parts[0] == "graphprune" else ("graphprune", *parts))


def test_packages_are_those_on_disk() -> None:
    folders = {path.parent for path in SOURCES}
    assert {package_of(folder) for folder in folders} == set(SETUPTOOLS["packages"])
    assert all((folder / "__init__.py").is_file() for folder in folders)


def test_top_level_folders_are_one_namespace() -> None:
    mapping = {package_of(ROOT / folder): folder for folder in FOLDERS}
    assert SETUPTOOLS["package-dir"] == mapping
    for name in mapping:
        assert importlib.import_module(name).__name__ == name


@pytest.mark.parametrize(("paths", "limit"), [(SOURCES, 400), (TESTS, 600)])
def test_files_are_short(paths: list[Path], limit: int) -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert {str(path): n for path, n in lengths.items() if n > limit} == {}


def test_no_file_is_a_drawer() -> None:
    drawers = {"utils", "util", "helpers", "helper", "misc", "common"}
    assert [str(path) for path in (*SOURCES, *TESTS) if path.stem in drawers] == []


def test_no_second_import_of_a_folder() -> None:
    banned = PYPROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    assert set(banned) == {"passes", "converters", "models"}
    assert "TID251" in PYPROJECT["tool"]["ruff"]["lint"]["select"]
    found = []
    for path in (*SOURCES, *TESTS):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            found += [f"{path}: {name}" for name in names if name.partition(".")[0] in banned]
    assert found == []


def test_frameworks_are_imported_by_nobody_at_import_time() -> None:
    """Importing the library must work without them, and not pay for them."""
    allowed = {"torch_example.py", "digits_network.py"}  # imported within functions only
    lazy = {ROOT / "converters" / "torch_graph"}  # by to_torch, but for the package's own page
    # By recover, as soon as torch is known to be there.
    recovery = ("checkpoint", "losses", "run", "torch_answers", "training", "written")
    lazy |= {ROOT / "converters" / "recovery" / f"{name}.py" for name in recovery}
    # By carry, once it knows which framework's network it has.
    lazy |= {
        p
        for p in SOURCES
        if p.parent.name == "carrying" and p.name.startswith(("torch_", "transformers_", "keras_"))
    }
    found = []
    for path in SOURCES:
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for node in body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            roots = {name.partition(".")[0] for name in names}
            is_lazy = path.name != "__init__.py" and lazy.intersection((path, *path.parents))
            if roots & FRAMEWORKS and not is_lazy:
                found.append(path.name)
    assert set(found) <= allowed


def test_the_library_imports_no_framework() -> None:
    import subprocess

    code = (
        "import sys, graphprune, graphprune.converters, graphprune.models, graphprune.profile;"
        f"print(*set({sorted(FRAMEWORKS)!r}) & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_public_names_have_docstrings() -> None:
    public = {
        name: value
        for name, value in vars(graphprune).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert {"analyze", "apply", "check", "load", "plan", "prune"} <= set(public)
    assert [name for name, value in public.items() if not inspect.getdoc(value)] == []
