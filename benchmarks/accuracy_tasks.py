"""The kit's models: their files, budgets, calibration samples, and how well a pruned one does.

The kit's own scripts make the samples and evaluate, so that the figures are those of its command lines.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from accuracy_heldout import Outputs, divergence

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Task:
    """A model of the kit and what is measured on it.

    Attributes:
        name: of the model.
        kind: what the kit's make_calibration.py calls its samples.
        model: path below the kit's folder.
        budgets: shares of the multiply-adds.
        samples: calibration samples, where figures on the test split are made.
        choosing: calibration samples, where methods are chosen; the rest is held out.
        metric: what is measured on the test split.
        torch_model: file with the parameters of the torch module, for Torch-Pruning.
    """

    name: str
    kind: str
    model: str
    budgets: tuple[float, ...]
    samples: int
    choosing: int
    metric: str
    torch_model: str = ""

    @property
    def lower_is_better(self) -> bool:
        return self.metric == "perplexity"


TASKS = {
    task.name: task
    for task in (
        Task("resnet56", "cifar10", "cifar10/resnet56.onnx", (0.667, 0.5, 0.4), 1024, 1024, "top-1 %",
             "cifar10/resnet56.onnx"),
        Task("resnet20", "cifar10", "cifar10/resnet20.onnx", (0.667, 0.5), 1024, 1024, "top-1 %",
             "cifar10/resnet20_unfolded.onnx"),
        Task("minilm", "sts", "sts/minilm.onnx", (0.67, 0.5, 0.35), 512, 512, "Spearman x 100"),
        Task("llama", "lm", "lm/llama.onnx", (0.8, 0.6), 256, 192, "perplexity"),
        Task("mixtral", "lm", "lm/mixtral.onnx", (0.8, 0.6), 256, 192, "perplexity"),
        Task("mobilenetv2", "imagenet", "imagenet/mobilenetv2.onnx", (0.7,), 250, 200, "top-1 %"),
    )
}  # fmt: skip


class Kit:
    """The folder with the models and data.

    Args:
        folder: of the kit.
        cache: for what its scripts make.
        threads: of onnxruntime in evaluations.
    """

    def __init__(self, folder: Path, cache: Path, threads: int) -> None:
        self.folder = folder.resolve()
        self._cache, self._threads = cache, threads
        self._dense: dict[str, Outputs] = {}

    def _script(self, name: str) -> ModuleType:
        path = self.folder / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None or not path.exists():
            message = f"no {path.name} in {self.folder}"
            raise SystemExit(message)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def _samples(self, task: Task) -> Arrays:
        path = self._cache / f"{task.kind}.npz"
        if not path.exists():
            script = self.folder / "make_calibration.py"
            command = [sys.executable, str(script), task.kind, str(path), "--labels"]
            subprocess.run(command, check=True, capture_output=True)
        with np.load(path) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def calibration(self, task: Task, count: int) -> tuple[Path, Path]:
        """The first samples, with and without labels (as far as there are any)."""
        paths = tuple(self._cache / f"{task.kind}-{count}-{kind}.npz" for kind in ("labels", "plain"))
        if not all(path.exists() for path in paths):
            arrays: dict[str, Any] = {name: array[:count] for name, array in self._samples(task).items()}
            np.savez(paths[0], **arrays)
            arrays.pop("labels", None)
            np.savez(paths[1], **arrays)
        return paths[0], paths[1]

    def test(self, task: Task, model: Path) -> tuple[float, dict[str, float]]:
        """The metric on the test split, and its parts where it has any."""
        if task.kind == "cifar10":
            with np.load(self.folder / "cifar10" / "test.npz") as data:
                images, labels = data["images"], data["labels"]
            script = self._script("eval_cifar")
            return 100 * script.evaluate(str(model), images, labels, threads=self._threads), {}
        if task.kind == "sts":
            return self._spearman(model, "test"), {}
        if task.kind == "imagenet":
            script = self._script("eval_imagenet")
            images, labels = script.load(self.folder / "imagenet" / "images.npz")
            # Every fourth image is for calibration.
            kept = np.arange(len(labels)) % 4 != 0
            share = script.evaluate(str(model), images[kept], labels[kept], threads=self._threads)
            return 100 * share, {}
        script = self._script("eval_lm")
        found = {
            piece: script.evaluate(str(model), piece, threads=self._threads)
            for piece in ("wiki", "shakespeare")
        }
        tokens = sum(count for _, _, count in found.values())
        nats = sum(count * float(np.log(value)) for value, _, count in found.values())
        return float(np.exp(nats / tokens)), {piece: value for piece, (value, _, _) in found.items()}

    def _spearman(self, model: Path, split: str) -> float:
        with np.load(self.folder / "sts" / f"stsb_{split}.npz") as data:
            pairs = {name: data[name] for name in data.files}
        return 100 * float(self._script("eval_sts").evaluate(str(model), pairs, self._threads))

    def held_out(self, task: Task, model: Path) -> dict[str, float]:
        """Figures to choose by: from calibration samples that no method was given, or a dev split."""
        if task.kind == "sts":
            return {"dev Spearman x 100": self._spearman(model, "dev")}
        rest = {name: array[task.choosing :] for name, array in self._samples(task).items()}
        labels = rest.pop("labels")
        if task.name not in self._dense:
            self._dense[task.name] = Outputs(self.folder / task.model, rest, self._threads)
        pruned = Outputs(model, rest, self._threads)
        return divergence(self._dense[task.name], pruned, labels if task.kind == "lm" else None)
