"""Peak memory of a model, measured in a process that does nothing but load and run it.

The child runs :data:`CHILD` and imports only numpy and onnxruntime, so that neither this library
nor another model's session is counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graphprune.errors import ModelError
from graphprune.profiling.feeds import Feeds
from graphprune.profiling.providers import PROVIDERS, Provider

RUNS = 3
CHILD = """
import json, re, sys
from pathlib import Path
ask = json.loads(sys.argv[1])
sys.path[:] = ask["path"]
import numpy as np
import onnxruntime as ort
def peak():
    if sys.platform == "linux":
        # ru_maxrss would be the parent's where that is larger: exec does not reset it.
        return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with np.load(ask["feeds"]) as data:
    feeds = {name: data[f"arr_{i}"] for i, name in enumerate(ask["names"])}
options = ort.SessionOptions()
options.log_severity_level = 4
options.intra_op_num_threads = ask["threads"]
before = peak()
session = ort.InferenceSession(ask["model"], options, providers=ask["providers"])
for _ in range(ask["runs"]):
    session.run(None, feeds)
print(json.dumps([before, peak()]))
"""


@dataclass(frozen=True)
class Memory:
    """Resident memory in bytes.

    Attributes:
        idle: of the process before it loaded the model.
        peak: greatest so far, after running it.
    """

    idle: int
    peak: int


def peak_memory(model: Path, provider: Provider, threads: int | None, feeds: Feeds) -> Memory | None:
    """Loads and runs the model in a process of its own; None where the system can't tell (Windows).

    Args:
        model: the ONNX file.
        provider: where it runs; memory of a device other than the CPU is not counted.
        threads: threads within an operator.
        feeds: the inputs.

    Raises:
        ModelError: the process died, for example for want of memory.
    """
    if sys.platform == "win32":
        return None
    providers = list(dict.fromkeys([provider.name, PROVIDERS["cpu"].name]))
    with tempfile.TemporaryDirectory(prefix="graphprune-") as folder:
        file = Path(folder) / "feeds.npz"
        np.savez(file, *feeds.values())
        ask = {
            "path": sys.path,
            "feeds": str(file),
            "names": list(feeds),
            "model": str(model),
            "threads": threads or 0,
            "providers": providers,
            "runs": RUNS,
        }
        command = [sys.executable, "-c", CHILD, json.dumps(ask)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        what = f"'{model}' cannot be run in a process of its own to measure its memory"
        lines = done.stderr.strip().splitlines()
        because = lines[-1] if lines else f"it ended with status {done.returncode}"
        raise ModelError(what, because=because)
    idle, peak = json.loads(done.stdout.splitlines()[-1])
    return Memory(idle, peak)
