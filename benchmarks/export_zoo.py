"""Export the benchmark zoo: well-known architectures with random weights, as ONNX files.

    python benchmarks/export_zoo.py OUT_DIR [--only 'vit*' ...] [--force] [--check-only]

Each network is written by both torch exporters (`NAME.legacy.onnx`: TorchScript, opset 17;
`NAME.dynamo.onnx`: torch.export, opset 18), one also by TensorFlow (`NAME.tf.onnx`, tf2onnx,
opset 17).  The batch axis is dynamic, and for text models the sequence axis as well.

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
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SEED = 20260901
TEXT = ("input_ids", "attention_mask")
TRACED_BATCH, TRACED_SEQUENCE = 2, 11
STATISTICS_BATCH = 8
CHECKED_SIZES = ((1, 8), (5, 23))  # (batch, sequence), none of them the traced ones


@dataclass(frozen=True)
class Spec:
    """One network: how to build it, and what it reads."""

    name: str
    build: Callable[[], Any]
    inputs: tuple[str, ...] = ("image",)
    vocabulary: int = 0

    def sample(self, batch: int, sequence: int, seed: int = 0) -> dict[str, np.ndarray]:
        """Random inputs; int64 token ids and an all-ones mask for text, float32 images else."""
        rng = np.random.default_rng(seed)
        feed: dict[str, np.ndarray] = {}
        for name in self.inputs:
            if name == "input_ids":
                feed[name] = rng.integers(0, self.vocabulary, (batch, sequence))
            elif name == "attention_mask":
                feed[name] = np.ones((batch, sequence), np.int64)
            else:
                feed[name] = rng.standard_normal((batch, 3, 224, 224)).astype(np.float32)
        return feed


@dataclass(frozen=True)
class Job:
    """One file to write."""

    spec: Spec
    exporter: str  # "legacy", "dynamo" or "tf"
    raw: bool = False

    @property
    def file(self) -> str:
        return f"{self.spec.name}{'.raw' if self.raw else ''}.{self.exporter}.onnx"


def torchvision_model(name: str) -> Any:
    # The index's torchvision may be built for another torch (CUDA next to CPU); its import then
    # fails on a missing operator, and takes timm and transformers with it.
    import torchvision

    return torchvision.models.get_model(name, weights=None)


def timm_model(name: str) -> Any:
    import timm

    return timm.create_model(name, pretrained=False)


def transformers_model(kind: str, vocabulary: int, **shape: Any) -> Any:
    import transformers

    config_type, model_type = {
        "bert": (transformers.BertConfig, transformers.BertForSequenceClassification),
        "bert_encoder": (transformers.BertConfig, transformers.BertModel),
        "gpt2": (transformers.GPT2Config, transformers.GPT2LMHeadModel),
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    }[kind]
    return model_type(config_type(vocab_size=vocabulary, **shape))


def keras_mobilenet_v2() -> Any:
    import tensorflow as tf

    return tf.keras.applications.MobileNetV2(weights=None)


LLAMA_SHAPE: dict[str, Any] = {
    "num_hidden_layers": 4,
    "hidden_size": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 688,
    "use_cache": False,
}


def text_spec(name: str, kind: str, vocabulary: int, **shape: Any) -> Spec:
    # Always with a mask: without one, transformers looks for packed sequences by an operator that
    # the TorchScript exporter does not know (aten::diff).
    return Spec(name, lambda: transformers_model(kind, vocabulary, **shape), TEXT, vocabulary)


SPECS = {
    spec.name: spec
    for spec in (
        Spec("resnet50", lambda: torchvision_model("resnet50")),
        Spec("densenet121", lambda: torchvision_model("densenet121")),
        Spec("mobilenetv2", lambda: torchvision_model("mobilenet_v2")),
        Spec("efficientnet_b0", lambda: torchvision_model("efficientnet_b0")),
        Spec("shufflenetv2", lambda: torchvision_model("shufflenet_v2_x1_0")),
        Spec("convnext_tiny", lambda: torchvision_model("convnext_tiny")),
        Spec("swin_tiny", lambda: torchvision_model("swin_t")),
        Spec("vit_tiny", lambda: timm_model("vit_tiny_patch16_224")),
        # Real widths, few layers and a small vocabulary: the same graph idioms in less time.
        text_spec("bert", "bert", 8192, num_hidden_layers=4, num_labels=5),
        text_spec("bert12", "bert_encoder", 30522),
        text_spec("gpt2", "gpt2", 8192, n_layer=4, use_cache=False),
        text_spec("llama_gqa", "llama", 2048, **LLAMA_SHAPE),
        Spec("mobilenetv2_keras", keras_mobilenet_v2),
    )
}


def jobs() -> Iterator[Job]:
    """All files, quick ones first: the dynamo exporter takes 3 to 30 times as long."""
    quick = ("resnet50", "mobilenetv2", "vit_tiny", "bert", "gpt2", "llama_gqa")
    torch_specs = [name for name in SPECS if name != "mobilenetv2_keras"]
    for name in (*quick, *(name for name in torch_specs if name not in quick)):
        yield Job(SPECS[name], "legacy")
    yield Job(SPECS["resnet50"], "legacy", raw=True)
    yield Job(SPECS["vit_tiny"], "legacy", raw=True)
    yield Job(SPECS["mobilenetv2_keras"], "tf")
    for name in (*quick, *(name for name in torch_specs if name not in quick)):
        yield Job(SPECS[name], "dynamo")
    yield Job(SPECS["resnet50"], "dynamo", raw=True)
    yield Job(SPECS["vit_tiny"], "dynamo", raw=True)


def perturbed(name: str, value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise of a tenth of the tensor's spread; 0.02 where all values are equal."""
    if name.endswith(("running_var", "moving_variance")):
        return (value * rng.uniform(0.75, 1.5, value.shape)).astype(value.dtype)
    # Rounding gives equal values a spread that is not quite 0, so that is asked of the extremes.
    spread = 0.1 * float(value.std()) if np.ptp(value) else 0.02
    noise = rng.standard_normal(value.shape).astype(value.dtype)
    return np.asarray(value + spread * noise, value.dtype)


def torch_network(job: Job) -> Any:
    """The network in eval mode behind a forward that takes tensors and returns one tensor."""
    import torch

    torch.manual_seed(SEED)
    network = job.spec.build().eval()
    rng = np.random.default_rng(SEED)
    if not job.raw:
        norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None  # a plain average, so one batch sets the statistics
            norm.train()
        if norms:
            with torch.no_grad():
                network(torch.from_numpy(job.spec.sample(STATISTICS_BATCH, 0)["image"]))
            network.eval()
        tensors = [*network.named_parameters(), *network.named_buffers()]
        with torch.no_grad():
            for name, tensor in tensors:
                learned = isinstance(tensor, torch.nn.Parameter) or "running_" in name
                if learned and tensor.is_floating_point():
                    tensor.copy_(torch.from_numpy(perturbed(name, tensor.numpy(), rng)))

    class SingleOutput(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *values: torch.Tensor) -> torch.Tensor:
            # By keyword for text models, whose third positional argument differs by model.
            text = dict(zip(job.spec.inputs, values, strict=True)) if job.spec.vocabulary else {}
            result = network(**text) if text else network(*values)
            return result if isinstance(result, torch.Tensor) else result[0]

    return SingleOutput().eval()


def export_torch(job: Job, path: Path) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Write one file with one of torch's exporters and return the network as a function."""
    import torch

    network = torch_network(job)
    feed = job.spec.sample(TRACED_BATCH, TRACED_SEQUENCE)
    arguments = tuple(torch.from_numpy(feed[name]) for name in job.spec.inputs)
    axes = {0: "batch", 1: "sequence"} if job.spec.vocabulary else {0: "batch"}
    common: dict[str, Any] = {"input_names": list(job.spec.inputs), "output_names": ["output"]}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if job.exporter == "legacy":
            dynamic = dict.fromkeys(job.spec.inputs, axes) | {"output": {0: "batch"}}
            torch.onnx.export(
                network, arguments, path, dynamo=False, opset_version=17, dynamic_axes=dynamic,
                **common,
            )  # fmt: skip
        else:
            torch.onnx.export(
                network, arguments, path, dynamo=True, opset_version=18, external_data=False,
                dynamic_shapes=(tuple(axes for _ in arguments),), verbose=False, **common,
            )  # fmt: skip

    def run(values: dict[str, np.ndarray]) -> np.ndarray:
        with torch.no_grad():
            output = network(*(torch.from_numpy(values[name]) for name in job.spec.inputs))
        return np.asarray(output.numpy())

    return run


def export_tensorflow(job: Job, path: Path) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Write one Keras model through tf2onnx (its input is NHWC)."""
    import tensorflow as tf
    import tf2onnx

    tf.keras.utils.set_random_seed(SEED)
    network = job.spec.build()
    rng = np.random.default_rng(SEED)
    for layer in network.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.momentum = 0.0  # one batch sets the statistics
    network(job.spec.sample(STATISTICS_BATCH, 0)["image"].transpose(0, 2, 3, 1), training=True)
    for variable in network.weights:
        variable.assign(perturbed(variable.path, np.asarray(variable), rng))
    # The softmax of an untrained network hides differences; the logits show them.
    network.layers[-1].activation = tf.keras.activations.linear
    signature = (tf.TensorSpec((None, 224, 224, 3), tf.float32, name="image"),)
    tf2onnx.convert.from_keras(network, signature, opset=17, output_path=str(path))
    return lambda values: np.asarray(network(values["image"].transpose(0, 2, 3, 1)))


def check(job: Job, path: Path, network: Callable[..., np.ndarray] | None = None) -> str:
    """Run the file at sizes it was not traced at, and compare with the source where it is known."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    report = []
    for batch, sequence in CHECKED_SIZES:
        feed = job.spec.sample(batch, sequence, seed=batch)
        file_feed = feed
        if job.exporter == "tf":
            file_feed = {"image": feed["image"].transpose(0, 2, 3, 1)}
        (output, *_) = session.run(None, file_feed)
        scale = float(np.abs(output).max())
        # Between samples: an output that ignores its input would make every comparison vacuous.
        between = float(np.abs(output[0] - output[-1]).max()) if batch > 1 else None
        text = f"batch {batch}: scale {scale:.3g}"
        text += "" if between is None else f", between samples {between:.3g}"
        if network is not None:
            text += f", from source {float(np.abs(output - network(feed)).max()):.1e}"
        report.append(text)
    return "; ".join(report)


def main() -> int:
    """Export what is asked for; 1 when a file could not be written or does not run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--only", nargs="*", default=["*"], help="globs over file names")
    parser.add_argument("--force", action="store_true", help="write files that are there already")
    parser.add_argument("--check-only", action="store_true", help="run the files that are there")
    arguments = parser.parse_args()
    arguments.out_dir.mkdir(parents=True, exist_ok=True)
    failed = False
    for job in jobs():
        path = arguments.out_dir / job.file
        if not any(fnmatch.fnmatch(job.file, glob) for glob in arguments.only):
            continue
        if path.exists() != arguments.check_only and not arguments.force:
            continue
        started, partial = time.perf_counter(), path.with_suffix(".partial")
        try:
            network = None
            if not arguments.check_only:
                export = export_tensorflow if job.exporter == "tf" else export_torch
                network = export(job, partial)
                partial.rename(path)  # others may be reading the folder meanwhile
            result = check(job, path, network)
        except ImportError as error:
            result = f"skipped, framework not usable here: {error}"
        except Exception as error:  # one model that fails must not end the others
            failed = True
            result = f"FAILED: {type(error).__name__}: {str(error).splitlines()[0][:200]}"
            traceback.print_exc(file=sys.stderr)
        print(f"{job.file:34} {time.perf_counter() - started:6.1f} s  {result}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
