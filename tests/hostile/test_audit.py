"""What is installed for development is locked, and an audit that nobody answered does not pass for one."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PLAIN = {"name": "a", "version": "1", "vulns": []}
SKIPPED = {"name": "b", "skip_reason": "not found"}
FLAWED = {"name": "c", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}


def verdict(found: list[dict[str, Any]], *, required: bool = False) -> tuple[int, str]:
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    code, text = module.verdict(found, "no answer", required=required)
    return int(code), str(text)


@pytest.mark.parametrize(
    ("found", "code", "required", "text"),
    [
        ([PLAIN], 0, 0, "1 packages looked up"),
        ([PLAIN, FLAWED], 1, 1, "vulnerable: c 2: CVE-1, fixed in 3"),
        ([PLAIN, SKIPPED], 0, 1, "1 NOT (no answer)"), ([SKIPPED], 0, 1, "NOT DONE"), ([], 0, 1, "NOT DONE"),
    ],
)  # fmt: skip
def test_what_is_said(found: list[dict[str, Any]], code: int, required: int, text: str) -> None:
    assert verdict(found)[0] == code
    assert verdict(found, required=True)[0] == required
    assert text in verdict(found)[1]


@pytest.mark.parametrize("name", ["dev", "lint"])
def test_every_requirement_is_locked(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    entries = re.split(r"\n(?=[a-z])", text.split("\n", 1)[1])
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+==\S+", entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry
    assert "://" not in text  # no host is written down


def test_everything_that_pyproject_names_is_locked() -> None:
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {
        "dev": project["optional-dependencies"]["dev"],
        "lint": project["optional-dependencies"]["audit"],
    }
    for name, entries in wanted.items():
        locked = set(
            re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements" / f"{name}.txt").read_text(), re.M)
        )
        for entry in (*project["dependencies"], *entries):
            assert re.match(r"[A-Za-z0-9._-]+", entry)[0].lower() in locked, entry  # type: ignore[index]
