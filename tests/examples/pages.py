"""A page as a script: titled code blocks are files, bash blocks are run, in the order of the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

FENCE = re.compile(r"^```(\w+)(?: title=\"([\w.]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
USES = re.compile(r"^<!-- files of ([\w.]+) -->$", re.MULTILINE)
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def run_page(name: str, folder: Path, **env: str) -> str:
    """What the page's commands print, when they are run one after the other in an empty folder."""
    said = []
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONWARNINGS": "ignore", **env}
    page = (EXAMPLES / name).read_text(encoding="utf-8")
    shared = [(EXAMPLES / other).read_text(encoding="utf-8") for other in USES.findall(page)]
    blocks = [block for other in shared for block in FENCE.findall(other) if block[1]] + FENCE.findall(page)
    for language, title, text in blocks:
        if title:
            (folder / title).write_text(text, encoding="utf-8")
        elif language == "bash":
            done = subprocess.run(
                ["bash", "-euc", text],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
            said.append(done.stdout)
    return "".join(said)


def number(said: str, label: str) -> float:
    """The number behind ``label:`` in what was printed."""
    found = re.search(rf"^{re.escape(label)}: ([\d.]+)", said, re.MULTILINE)
    assert found, f"no '{label}:' in\n{said}"
    return float(found[1])
