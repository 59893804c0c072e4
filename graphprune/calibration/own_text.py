"""Text that a language model writes itself: sequences of tokens as it has learnt them.

All positions are drawn at once, from what the model predicts behind the sequence of the round before. The
first round makes pairs of words, the next ones triples and so on; four rounds cost four runs, and come close
to text written token by token.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from graphprune.calibration.samples import Samples
from graphprune.compare import run, session
from graphprune.errors import ValidationError
from graphprune.model import Model
from graphprune.sample_inputs import table_rows

Array = npt.NDArray[np.generic]
_ROUNDS = 4
_BATCH = 16


def rewritten(model: Model, samples: Samples, rng: np.random.Generator) -> Mapping[str, Array]:
    """The feeds, with tokens that the model wrote where it predicts the next one.

    That is a model with one counted input of indices ``[samples, length]`` into a table of V rows and an
    output ``[samples, length, V]``, whose later tokens don't change the outputs of earlier ones.

    Args:
        model: the model.
        samples: with tokens drawn evenly.
        rng: draws the tokens.
    """
    found = _names(model, samples)
    if found is None:
        return samples.feeds
    tokens, logits = found
    feeds = dict(samples.feeds)
    try:
        runner = session(model)
        if not _is_causal(runner, replace_tokens(samples, tokens, samples.feeds[tokens]), tokens, logits):
            return samples.feeds
        for _ in range(_ROUNDS):
            rows = []
            for batch in replace_tokens(samples, tokens, feeds[tokens]).batches(_BATCH):
                scores = run(runner, batch)[logits][:, :-1].astype(np.float32)
                drawn = (scores + rng.gumbel(size=scores.shape).astype(np.float32)).argmax(axis=-1)
                rows.append(np.concatenate([batch[tokens][:, :1], drawn], axis=1))
            feeds[tokens] = np.concatenate(rows).astype(feeds[tokens].dtype)
    except ValidationError:  # it does not run on made-up tokens, so it can't write any
        return samples.feeds
    return feeds


def replace_tokens(samples: Samples, name: str, tokens: Array) -> Samples:
    """The samples with other tokens."""
    return Samples({**samples.feeds, name: tokens}, None, samples.shared, samples.size)


def _names(model: Model, samples: Samples) -> tuple[str, str] | None:
    """Input of tokens and output of their scores."""
    for value in model.ir.graph.inputs:
        name = value.name or ""
        array = samples.feeds.get(name)
        rows = table_rows(value)
        if array is None or array.ndim != 2 or array.shape[1] < 2 or not rows or name in samples.shared:
            continue
        for output in model.ir.graph.outputs:
            shape = output.shape
            if shape is not None and len(shape) == 3 and shape[2] == rows:
                return name, output.name or ""
    return None


def _is_causal(runner: ort.InferenceSession, samples: Samples, tokens: str, logits: str) -> bool:
    """Do the last tokens leave all scores alone that stand before them?"""
    feeds = next(samples.batches(2))
    half = feeds[tokens].shape[1] // 2
    changed = feeds[tokens].copy()
    changed[:, half:] = changed[:, half:] == 0
    first, second = run(runner, feeds)[logits], run(runner, {**feeds, tokens: changed})[logits]
    if first.shape[:2] != changed.shape:
        return False
    return bool(np.allclose(first[:, :half], second[:, :half], rtol=1e-3, atol=1e-3))
