"""How far the outputs of a pruned model are from the dense one's, on samples without labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

BATCH = 16


class Outputs:
    """Logarithms of the probabilities that a model gives, for all samples.

    Args:
        model: path; its first output is logits.
        samples: arrays by input name.
        threads: of onnxruntime (0: its own choice).
    """

    def __init__(self, model: Path, samples: Mapping[str, npt.NDArray[Any]], threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        count = len(next(iter(samples.values())))
        parts = []
        for start in range(0, count, BATCH):
            feeds = {name: array[start : start + BATCH] for name, array in samples.items()}
            logits = session.run(None, feeds)[0]
            shifted = logits - logits.max(-1, keepdims=True)
            parts.append(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))
        self.log: npt.NDArray[np.float32] = np.concatenate(parts)


def divergence(
    dense: Outputs, pruned: Outputs, next_tokens: npt.NDArray[np.int64] | None = None
) -> dict[str, float]:
    """KL divergence in nats, agreement of the first guess, and perplexity where the next token is known."""
    nats = (np.exp(dense.log) * (dense.log - pruned.log)).sum(-1)
    agreement = dense.log.argmax(-1) == pruned.log.argmax(-1)
    found = {"KL": float(nats.mean()), "agreement %": 100 * float(agreement.mean())}
    if next_tokens is not None:
        picked = np.take_along_axis(pruned.log, next_tokens[..., None], -1)
        found["perplexity"] = float(np.exp(-picked.mean(dtype=np.float64)))
    return found
