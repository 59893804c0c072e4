"""Torch-Pruning 1.6.1 on the kit's CIFAR ResNets: a worker of accuracy.py, in a Python with torch.

    pip install torch onnx onnxruntime && pip install --no-deps torch-pruning==1.6.1

Only channels inside the blocks are cut: Torch-Pruning can't cut the residual stream of these networks, whose
shortcuts stride and pad.  It knows no budget, so the ratio that meets the multiply-adds is searched.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import torch_pruning as tp
from accuracy_jobs import OVERSHOOT, peak_mb
from accuracy_torch_resnet import Images, ResNet, augmented, batches, load_resnet, reestimate
from torch import nn
from torch.nn import functional

IMPORTANCES = {
    "magnitude": tp.importance.GroupMagnitudeImportance,
    "lamp": tp.importance.LAMPImportance,
    "fpgm": tp.importance.FPGMImportance,
    "bn-scale": tp.importance.BNScaleImportance,
    "taylor": tp.importance.GroupTaylorImportance,
}
SCOPES = ("global", "local")
STEPS = 14
PARITY = 1e-3
EXAMPLE = (1, 3, 32, 32)


def count_macs(network: nn.Module) -> int:
    """Multiply-adds of convolutions and linear layers."""
    total = 0

    def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        total += output[0].numel() * module.weight[0].numel()

    kinds = (nn.Conv2d, nn.Linear)
    hooks = [m.register_forward_hook(hook) for m in network.modules() if isinstance(m, kinds)]
    with torch.no_grad():
        network(torch.zeros(EXAMPLE))
    for handle in hooks:
        handle.remove()
    return total


def gradients(network: nn.Module, images: Images, labels: Iterable[int]) -> None:
    """Of the loss with the given labels, summed over the samples."""
    wanted = torch.as_tensor(np.asarray(labels))
    start = 0
    for batch in batches(images):
        logits = network(batch)
        functional.cross_entropy(logits, wanted[start : start + len(batch)], reduction="sum").backward()
        start += len(batch)


def pruned_copy(network: ResNet, importance: str, scope: str, ratio: float) -> ResNet:
    smaller = copy.deepcopy(network)
    for parameter, original in zip(smaller.parameters(), network.parameters(), strict=True):
        parameter.grad = None if original.grad is None else original.grad.clone()
    pruner = tp.pruner.MetaPruner(
        smaller,
        torch.zeros(EXAMPLE),
        importance=IMPORTANCES[importance](),
        global_pruning=scope == "global",
        pruning_ratio=ratio,
        ignored_layers=smaller.outside_blocks(),
    )
    pruner.step()
    smaller.zero_grad()
    return smaller


def meet(network: ResNet, importance: str, scope: str, target: float) -> ResNet:
    """The copy whose share of the multiply-adds is nearest to the target."""
    dense = count_macs(network)
    low, high = 0.0, 1.0
    tried: list[tuple[float, ResNet]] = []
    for _ in range(STEPS):
        middle = (low + high) / 2
        smaller = pruned_copy(network, importance, scope, middle)
        share = count_macs(smaller) / dense
        tried.append((share, smaller))
        low, high = (low, middle) if share <= target else (middle, high)
    met = [(share, smaller) for share, smaller in tried if share <= target + OVERSHOOT]
    if not met:
        message = f"no ratio keeps {target:.1%} of the multiply-adds"
        raise SystemExit(message)
    return min(met, key=lambda pair: abs(pair[0] - target))[1]


def export(network: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(), (torch.zeros(EXAMPLE),), path, dynamo=False, opset_version=17,
            input_names=["image"], output_names=["logits"], dynamic_axes={"image": {0: "batch"}},
        )  # fmt: skip


def check_parity(network: nn.Module, path: Path, images: Images) -> float:
    """Largest difference from the ONNX file's outputs on some images."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        ours = network(torch.from_numpy(images)).numpy()
    difference = float(np.abs(ours - session.run(None, {"image": images})[0]).max())
    if difference > PARITY:
        message = f"the torch network differs from {path.name} by {difference:.2g}"
        raise SystemExit(message)
    return difference


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network", type=Path, help="ONNX file with the names of the torch module")
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--target", type=float, required=True)
    parser.add_argument("--importance", choices=[*IMPORTANCES], required=True)
    parser.add_argument("--scope", choices=SCOPES, required=True)
    parser.add_argument("--out", type=Path, required=True, help="start of the names of the files to write")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    samples = np.load(options.calibration)
    images = samples["image"]
    network = load_resnet(options.network, images)
    parity = check_parity(network, options.network, images[:64])
    started = time.perf_counter()
    if options.importance == "taylor":
        gradients(network, images, samples["labels"])
    pruned = meet(network, options.importance, options.scope, options.target)
    answers = []
    spent = time.perf_counter() - started
    for variant in ("", "bn", "bn-augmented"):
        started = time.perf_counter()
        finished = pruned
        if variant:
            finished = copy.deepcopy(pruned)
            reestimate(finished, augmented(images, options.seed) if "augmented" in variant else images)
        path = options.out.with_name(f"{options.out.name}{variant}.onnx")
        export(finished, path)
        seconds = spent + time.perf_counter() - started
        answers.append({"variant": variant, "path": str(path), "seconds": seconds, "peak_mb": peak_mb()})
    print(json.dumps({"parity": parity, "files": answers}))


if __name__ == "__main__":
    main()
