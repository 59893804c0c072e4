"""The steps themselves: batches, gradients, a look at the held-out samples now and then, the best weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from graphprune.converters.recovery import checkpoint
from graphprune.converters.recovery.answers import Answers, Kept
from graphprune.converters.recovery.augment import Augmentation
from graphprune.converters.recovery.batches import Batch, Order
from graphprune.converters.recovery.losses import Loss
from graphprune.converters.recovery.options import Options
from graphprune.converters.recovery.schedule import Schedule
from torch import Tensor

from graphprune.errors import ModelError, UsageError
from graphprune.progress import Progress

#: Looks at the held-out samples in the course of a run.
LOOKS = 20
#: Gradients are not longer than this.
_CLIP = 1.0
_PARTS = 1000
#: What tensors that are all zero count for; the others count for their root mean square.
_ZEROS = 1e-2


@dataclass
class State:
    """What changes in the course of a run, besides weights and the optimizer.

    Attributes:
        step: steps that are done.
        first: held-out loss before the first step.
        best: the least held-out loss.
        weights: those that had it; None: nothing was better than the model as it was.
        stale: looks since then.
        history: progress and held-out loss of every look.
    """

    step: int = 0
    first: float = float("inf")
    best: float = float("inf")
    weights: dict[str, Tensor] | None = None
    stale: int = 0
    history: list[tuple[float, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Training:
    """One run.

    Args:
        module: the pruned model, on its device.
        loss: of a batch.
        order: what to learn from.
        augmentation: what is done to it.
        answers: the reference.
        kept: its answers to the samples as they are, if they are known already.
        judges: held-out batches with the reference's answers.
        options: of the run.
        progress: is told how far it is.
    """

    def __init__(
        self,
        module: Any,
        loss: Loss,
        order: Order,
        augmentation: Augmentation,
        answers: Answers,
        kept: Kept | None,
        judges: Sequence[tuple[Batch, Mapping[str, Any]]],
        options: Options,
        progress: Progress,
    ) -> None:
        self._module, self._loss, self._order, self._augmentation = module, loss, order, augmentation
        self._answers, self._kept, self._judges = answers, kept, judges
        self._options, self._progress = options, progress
        self._names = [*loss.outputs, *loss.hidden]
        self._device = torch.device(options.device)
        self._parameters: dict[str, Tensor] = module.initializers
        self._rates = [options.lr * _size(p) for p in self._parameters.values()]
        pairs = zip(self._parameters.values(), self._rates, strict=True)
        groups = [{"params": [p], "lr": rate} for p, rate in pairs]
        self._optimizer = torch.optim.AdamW(groups, weight_decay=options.weight_decay)
        self.steps = None if options.epochs is None else max(1, round(options.epochs * order.per_epoch))
        self._schedule = self._scheduled(0.0)
        self.state = State()

    @property
    def elapsed(self) -> float:
        """Seconds of training, those before an interruption included."""
        return self._schedule.elapsed

    def resume(self, path: Path, run: dict[str, Any]) -> None:
        """Goes on from a checkpoint.

        Raises:
            ModelError: it is none, or one of another run.
        """
        saved = checkpoint.read(path, run)
        self._put(saved["parameters"])
        self._optimizer.load_state_dict(saved["optimizer"])
        self.state = State(**saved["progress"])
        self.state.history = [(float(a), float(b)) for a, b in self.state.history]
        self._schedule = self._scheduled(float(saved["elapsed"]))

    def run(self, path: Path | None = None, run: dict[str, Any] | None = None) -> State:
        """Steps until the run is over, or nothing gets better any more; the module gets the best weights.

        Args:
            path: a checkpoint is written there at every look.
            run: what the checkpoint belongs to.
        """
        state = self.state
        if not state.history:
            state.first = state.best = self._look(0.0)
        looked = state.step
        while (done := self._schedule.progress(state.step)) < 1:
            if state.stale >= self._options.patience:  # before the step: a checkpoint may have stopped here
                state.notes.append(f"stopped at {done:.0%}: {state.stale} looks without anything better")
                break
            self._progress("recovering", int(done * _PARTS), _PARTS)
            if not self._learn(state.step):
                looked = state.step  # what is no number need not be looked at
                state.notes.append(
                    f"the loss was no number any more at step {state.step}: a smaller --lr may help"
                )
                break
            state.step += 1
            done = self._schedule.progress(state.step)
            if int(done * LOOKS) >= len(state.history):
                self._judge(done)
                looked = state.step
                if path is not None and run is not None:
                    self._save(path, run)
        if looked != state.step:  # the clock ran out behind a look
            self._judge(1.0)
        self._progress("recovering", _PARTS, _PARTS)
        if state.weights is not None:
            self._put(state.weights)
        return state

    def _scheduled(self, spent: float) -> Schedule:
        minutes = self._options.minutes
        return Schedule(self.steps, None if minutes is None else 60 * minutes, spent)

    def _learn(self, step: int) -> bool:
        """One step; False if its loss is no number."""
        options = self._options
        factor = self._schedule.factor(step)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        self._optimizer.zero_grad(set_to_none=True)
        batches = self._order.at(step)
        rows = self._order.rows(step)
        start = 0
        epoch, number = self._order.where(step)
        for i, batch in enumerate(batches):
            count = len(rows) // len(batches) if i < len(batches) - 1 else len(rows) - start
            own = rows[start : start + count]
            start += count
            feeds, is_labelled = self._augmentation(
                batch.feeds, options.seed, epoch, number * len(batches) + i
            )
            known = self._kept is not None and feeds is batch.feeds
            expected = self._kept.at(own) if known and self._kept is not None else self._answers(feeds)
            labels = batch.labels if is_labelled else None
            with torch.autocast(self._device.type, torch.bfloat16, enabled=options.precision == "bfloat16"):
                found = self._run(feeds)
            loss = self._measured(Batch(batch.feeds, labels, batch.mask), found, expected)
            if not bool(torch.isfinite(loss)):
                return False
            _back(loss * (count / len(rows)))
        torch.nn.utils.clip_grad_norm_(self._parameters.values(), _CLIP, error_if_nonfinite=False)
        self._optimizer.step()
        return True

    def _run(self, feeds: Mapping[str, Any]) -> dict[str, Tensor]:
        given = {name: _tensor(array, self._device) for name, array in feeds.items()}
        found: dict[str, Tensor] = self._module(given, fetch=self._names)
        return found

    def _measured(self, batch: Batch, found: Mapping[str, Tensor], expected: Mapping[str, Any]) -> Tensor:
        wanted = {name: _tensor(expected[name], self._device) for name in self._names}
        for name, tensor in wanted.items():
            if tensor.shape != found[name].shape:
                message = (
                    f"'{name}' has the shape {list(found[name].shape)}, the reference's {list(tensor.shape)}"
                )
                because = "the two depend on the samples differently"
                raise ModelError(message, because=because, hint="--hidden with other tensors, or none")
        mask = None if batch.mask is None else torch.from_numpy(batch.mask).to(self._device)
        labels = None if batch.labels is None else _tensor(batch.labels, self._device).long()
        return self._loss(found, wanted, mask, labels)

    def _judge(self, done: float) -> None:
        state = self.state
        found = self._look(done)
        if found < state.best:
            state.best, state.stale = found, 0
            state.weights = {name: p.detach().clone() for name, p in self._parameters.items()}
        else:
            state.stale += 1

    def _look(self, done: float) -> float:
        """The loss of the held-out samples."""
        total, count = 0.0, 0
        with torch.no_grad():
            for batch, expected in self._judges:
                size = max(len(a) if a.ndim else 1 for a in batch.feeds.values())
                total += size * float(self._measured(batch, self._run(batch.feeds), expected))
                count += size
        found = total / max(count, 1)
        self.state.history.append((done, found))
        return found if np.isfinite(found) else float("inf")

    def _put(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(weights[name])

    def _save(self, path: Path, run: dict[str, Any]) -> None:
        state = self.state
        progress = {name: getattr(state, name) for name in State.__dataclass_fields__}
        parameters = {name: p.detach() for name, p in self._parameters.items()}
        saved = {
            "parameters": parameters,
            "optimizer": self._optimizer.state_dict(),
            "progress": progress,
            "elapsed": self._schedule.elapsed,
        }
        checkpoint.save(path, run, saved)


def _size(parameter: Tensor) -> float:
    """Root mean square of a tensor.

    Adam moves all numbers by about the learning rate.  Where normalisations were folded into weights, one
    rate for all would tear some layers apart and leave others where they are.
    """
    return float(parameter.detach().double().square().mean().sqrt()) or _ZEROS


def _back(loss: Tensor) -> None:
    if not loss.requires_grad:
        message = "there is nothing to train: no weight has an influence on what is learned"
        because = "its operators round, compare or index on the way"
        raise UsageError(message, because=because, hint="a model with floating-point weights")
    loss.backward()


def _tensor(array: Any, device: torch.device) -> Tensor:
    if isinstance(array, Tensor):
        return array.to(device)
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    found = torch.from_numpy(np.ascontiguousarray(array)).to(device)
    if found.ndim == 4 and found.is_floating_point():
        found = found.contiguous(memory_format=torch.channels_last)
    return found
