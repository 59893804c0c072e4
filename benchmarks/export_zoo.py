"""Export the benchmark zoo: many architectures with random weights, as ONNX files.

    python benchmarks/export_zoo.py OUT_DIR [--only 'vit*' ...] [--force] [--check-only]

The networks are in the `zoo_models_*.py` files beside this one.  Each is written by one or both torch
exporters (`NAME.legacy.onnx`: TorchScript, opset 17; `NAME.dynamo.onnx`: torch.export, opset 18), some by
TensorFlow (`NAME.tf.onnx`: tf2onnx, opset 17) or JAX (`NAME.jax.onnx`: jax2onnx).  The batch axis is
dynamic, and for text models the sequence axis as well.

Every parameter is perturbed with seeded noise.  A fresh network has all-ones scales and all-zero
biases, which exporters merge across layers, and some have an all-zero head, whose output is 0
whatever a pruner breaks.  BatchNorm statistics are first taken from one random batch: without
them the signal of MobileNetV2 or EfficientNet dies out within a few layers, and the output no
longer depends on the image.  The `.raw` variants skip both on purpose and so keep the merging.

A framework that is not installed, or not usable, skips its models and says so.
"""

from __future__ import annotations

import argparse
import fnmatch
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zoo_models_media
import zoo_models_other
import zoo_models_own_attention
import zoo_models_own_dense
import zoo_models_own_images
import zoo_models_own_series
import zoo_models_text
import zoo_models_vision
from zoo_light import write_light
from zoo_models_other import channels_last
from zoo_spec import CHECKED, SEED, STATISTICS_BATCH, TRACED, Exporter, Job, Network, jobs_of, perturbed

KEPT: list[Any] = []  # the operators defined below end with their library object


def make_torchvision_importable() -> None:
    """Lets a torchvision built for CUDA be imported next to a CPU-only torch.

    Its C library can't be loaded there, and the import fails on a missing operator, which takes timm
    and transformers with it.  Only the schemas are needed: no network of the zoo calls them.
    """
    import importlib.util

    import torch

    found = importlib.util.find_spec("torchvision")
    library = Path(found.origin).parent / "_C.so" if found is not None and found.origin else None
    if library is None or not library.exists():
        return
    try:
        torch.ops.load_library(str(library))
    except OSError:
        operators = torch.library.Library("torchvision", "DEF")
        operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        KEPT.append(operators)
        import torchvision.extension

        torchvision.extension._has_ops = lambda: True


def set_statistics(network: Any, job: Job) -> None:
    """Takes the BatchNorm statistics from one batch."""
    import torch

    norms = [m for m in network.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    for norm in norms:
        norm.momentum = None  # a plain average, so one batch sets the statistics
        norm.train()
    feed = job.spec.sample(TRACED | {"batch": STATISTICS_BATCH})
    values = {name: torch.from_numpy(array) for name, array in feed.items()}
    with torch.no_grad():
        network(**values) if job.spec.keywords else network(*values.values())
    network.eval()


def torch_network(job: Job) -> Any:
    """The network in eval mode behind a forward that takes tensors and returns tensors."""
    import torch

    torch.manual_seed(SEED)
    torch.backends.mha.set_fastpath_enabled(False)  # its fused operator is not exported
    network = job.spec.build().eval()
    rng = np.random.default_rng(SEED)
    if not job.raw:
        set_statistics(network, job)
        with torch.no_grad():
            for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
                learned = isinstance(tensor, torch.nn.Parameter) or "running_" in name
                if learned and tensor.is_floating_point():
                    tensor.copy_(torch.from_numpy(perturbed(name, tensor.numpy(), rng)))

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *values: torch.Tensor) -> Any:
            # By keyword for text models, whose third positional argument differs by model.
            named = dict(zip(job.spec.inputs, values, strict=True)) if job.spec.keywords else {}
            result = network(**named) if named else network(*values)
            if job.spec.pick is not None:
                return job.spec.pick(result)
            return result if isinstance(result, torch.Tensor) else result[0]

    return Plain().eval()


def export_torch(job: Job, path: Path) -> Network:
    """Write one file with one of torch's exporters and return the network as a function."""
    import torch

    network = torch_network(job)
    feed = job.spec.sample(TRACED)
    arguments = tuple(torch.from_numpy(array) for array in feed.values())
    axes = {name: value.open_axes for name, value in job.spec.inputs.items()}

    def run(values: dict[str, np.ndarray]) -> list[np.ndarray]:
        with torch.no_grad():
            result = network(*(torch.from_numpy(values[name]) for name in job.spec.inputs))
        outputs = [result] if isinstance(result, torch.Tensor) else list(result)
        return [np.asarray(output.numpy()) for output in outputs]

    count = len(run(feed))
    names = ["output", *(f"output_{i}" for i in range(1, count))]
    common: dict[str, Any] = {"input_names": list(axes), "output_names": names}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if job.exporter == "legacy":
            dynamic: dict[str, Any] = axes | {name: {0: "batch"} for name in names}
            torch.onnx.export(
                network, arguments, path, dynamo=False, opset_version=17, dynamic_axes=dynamic, **common
            )
        else:
            torch.onnx.export(
                network,
                arguments,
                path,
                dynamo=True,
                opset_version=18,
                external_data=False,
                dynamic_shapes=(tuple(axes.values()),),
                verbose=False,
                **common,
            )
    return run


TABLES = (
    zoo_models_vision,
    zoo_models_text,
    zoo_models_media,
    zoo_models_own_series,
    zoo_models_own_images,
    zoo_models_own_dense,
    zoo_models_own_attention,
    zoo_models_other,
)
EXPORT: dict[Exporter, Callable[[Job, Path], Network]] = {
    "legacy": export_torch,
    "dynamo": export_torch,
    "tf": zoo_models_other.export_tensorflow,
    "jax": zoo_models_other.export_jax,
}


def check(job: Job, path: Path, network: Network | None = None) -> str:
    """Run the file at sizes it was not traced at, and compare with the source where it is known."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    report = []
    for sizes in CHECKED:
        feed = job.spec.sample(sizes, seed=sizes["batch"])
        if job.exporter in ("tf", "jax"):  # the names may have changed, the order stays
            outputs = session.run(None, dict(zip(names, channels_last(feed), strict=True)))
        else:
            outputs = session.run(None, {name: feed[name] for name in names})
        scale = float(np.abs(outputs[0]).max())
        # Between samples: an output that ignores its input would make every comparison vacuous.
        between = float(np.abs(outputs[0][0] - outputs[0][-1]).max()) if sizes["batch"] > 1 else None
        line = f"batch {sizes['batch']}: scale {scale:.3g}"
        line += "" if between is None else f", between samples {between:.3g}"
        if network is not None:
            pairs = zip(outputs, network(feed), strict=True)
            line += f", from source {max(float(np.abs(a - b).max()) for a, b in pairs):.1e}"
        report.append(line)
    return "; ".join(report)


def write(job: Job, path: Path, check_only: bool) -> str:
    """Writes and checks one file; the report, or why there is none."""
    if check_only:
        return check(job, path)
    partial = path.with_suffix(".partial")  # others may be reading the folder meanwhile
    result = check(job, partial, EXPORT[job.exporter](job, partial))
    partial.rename(path)
    return result


def time_is_up(*_: object) -> None:
    message = "the time limit is reached"
    raise TimeoutError(message)


def main() -> int:
    """Export what is asked for; 1 when a file could not be written or does not run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--only", nargs="*", default=["*"], help="globs over file names")
    parser.add_argument("--force", action="store_true", help="write files that are there already")
    parser.add_argument("--check-only", action="store_true", help="run the files that are there")
    parser.add_argument("--timeout", type=int, default=600, help="seconds per file")
    arguments = parser.parse_args()
    arguments.out_dir.mkdir(parents=True, exist_ok=True)
    failed = False
    try:
        make_torchvision_importable()
    except ImportError:
        print("torch is not installed here: its models are skipped", file=sys.stderr)
    write_light(arguments.out_dir, arguments.only, arguments.force)
    signal.signal(signal.SIGALRM, time_is_up)
    for job in jobs_of([spec for table in TABLES for spec in table.SPECS]):
        path = arguments.out_dir / job.file
        if not any(fnmatch.fnmatch(job.file, glob) for glob in arguments.only):
            continue
        if path.exists() != arguments.check_only and not arguments.force:
            continue
        started = time.perf_counter()
        signal.alarm(arguments.timeout)
        try:
            result = write(job, path, arguments.check_only)
        except ImportError as error:
            result = f"skipped, framework not usable here: {error}"
        except Exception as error:  # one model that fails must not end the others
            failed = True
            lines = str(error).splitlines() or [""]
            result = f"FAILED: {type(error).__name__}: {lines[0][:200]}"
            traceback.print_exc(file=sys.stderr)
        signal.alarm(0)
        print(f"{job.file:44} {time.perf_counter() - started:6.1f} s  {result}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
