"""This machine, with the onnxruntime that is installed here."""

from __future__ import annotations

import json
import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from graphprune.device.protocol import Identity, Job, Times
from graphprune.errors import ModelError
from graphprune.profiling.feeds import make_feeds
from graphprune.profiling.providers import device_name, find_provider, open_session
from graphprune.profiling.timing import measure
from graphprune.runner.serving import cores

#: Providers whose kernels run while the profiler waits; others start them and go on.
_WAITS = ("cpu", "xnnpack")
_WARMUP, _LEAST, _MOST = 2, 5, 60
#: What a kernel's event is called after its node.
_KERNEL = "_kernel_time"
#: Instruction sets that decide which kernels a runtime takes, as Linux calls them.
_FLAGS = (
    "sse4_1", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni",
    "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp",
    "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip


class LocalDevice:
    """onnxruntime in this process.

    Args:
        provider: short name of an execution provider.
        threads: within an operator; None: as onnxruntime chooses.

    Raises:
        UsageError: there is no such provider.
        ModelError: it is not available here.
    """

    def __init__(self, provider: str = "cpu", threads: int | None = None) -> None:
        self._name, self._threads = provider, threads
        self._provider = find_provider(provider)

    @cached_property
    def identity(self) -> Identity:
        """This machine and its runtime."""
        return Identity(
            device=device_name(self._provider),
            flags=cpu_flags(),
            runtime="onnxruntime",
            version=str(ort.__version__),
            provider=self._name,
            threads=self._threads,
            cores=cores(),
        )

    def measure(self, jobs: Sequence[Job], *, seconds: float = 3.0) -> list[Times]:
        """See :class:`~graphprune.device.protocol.Device`."""
        sessions = [open_session(job.model, self._provider, self._threads) for job in jobs]
        runs = []
        for job, session in zip(jobs, sessions, strict=True):
            feeds = make_feeds(session, job.batch, job.dims)
            _try(session, feeds)
            runs.append(partial(session.run, None, feeds))
        found = measure(runs, None, None, seconds)
        return [Times(tuple(t.milliseconds.tolist()), tuple(t.medians.tolist())) for t in found]

    def node_times(self, job: Job, *, seconds: float = 1.0) -> Mapping[str, float] | None:
        """See :class:`~graphprune.device.protocol.Device`."""
        if self._name not in _WAITS:
            return None
        with tempfile.TemporaryDirectory(prefix="graphprune-") as folder:
            session = open_session(job.model, self._provider, self._threads, trace=Path(folder) / "trace")
            feeds = make_feeds(session, job.batch, job.dims)
            _try(session, feeds)
            timing = measure([partial(session.run, None, feeds)], _WARMUP, 1)[0]
            pace = float(timing.milliseconds.min())
            runs = int(np.clip(seconds * 1e3 / max(pace, 1e-6), _LEAST, _MOST))
            for _ in range(runs):
                session.run(None, feeds)
            trace = Path(session.end_profiling())
            events = json.loads(trace.read_text(encoding="utf-8"))
        return _by_node(events, runs)


def _try(session: ort.InferenceSession, feeds: Mapping[str, npt.NDArray[np.generic]]) -> None:
    try:
        session.run(None, feeds)
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
        what = "the model does not run on inputs of the chosen sizes"
        because = str(error).splitlines()[0]
        raise ModelError(what, where=shapes, because=because, hint="--dim NAME=SIZE") from error


def _by_node(events: Sequence[Mapping[str, object]], runs: int) -> dict[str, float]:
    """Median milliseconds of each node over the last runs."""
    starts = sorted(int(str(e["ts"])) for e in events if e.get("name") == "model_run")
    skipped = len(starts) - runs
    totals: dict[str, npt.NDArray[np.float64]] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") != "Node" or not name.endswith(_KERNEL):
            continue
        number = bisect_right(starts, int(str(event["ts"]))) - 1 - skipped
        if number >= 0:
            times = totals.setdefault(name.removesuffix(_KERNEL), np.zeros(runs))
            times[number] += int(str(event["dur"])) / 1e3
    return {name: float(np.median(times)) for name, times in totals.items()}


def cpu_flags() -> tuple[str, ...]:
    """Instruction sets of this processor, where the system tells."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # no Linux
        return ()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return known_flags(value.split())
    return ()


def known_flags(there: Iterable[str]) -> tuple[str, ...]:
    """Those of a processor's features that decide which kernels a runtime takes."""
    features = set(there)
    return tuple(flag for flag in _FLAGS if flag in features)
