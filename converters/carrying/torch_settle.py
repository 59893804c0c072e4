"""Attributes that could be one size or another are settled by running the module."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

import torch
from graphprune.converters.carrying import torch_scale as scales
from graphprune.converters.carrying.torch_attributes import Choice
from graphprune.converters.carrying.torch_noise import holding
from graphprune.converters.carrying.torch_watch import Attention, Watch
from torch import nn

from graphprune.errors import ModelError, ValidationError

#: Combinations tried for the module that fails, and for all of them.
_NEAR, _FAR = 48, 48


@dataclass(frozen=True)
class Trial:
    """A run of the carried module.

    Attributes:
        run: as it was observed.
        error: distance from the pruned model; infinite where the run failed.
    """

    run: Watch
    error: float


@dataclass(frozen=True)
class Again:
    """The same comparison with random weights, which tell apart what the real ones hide.

    Attributes:
        tensors: name of a tensor of the cut module -> random numbers.
        distance: of a result from what is wanted.
        tolerance: that is rounding.
    """

    tensors: Mapping[str, torch.Tensor]
    distance: Callable[[Any], float]
    tolerance: float


class Settling:
    """Tries values until the module computes what it must.

    Args:
        module: cut.
        found: its open attributes.
        before: attention calls of the uncut module.
        run: runs the module.
        distance: of a result from what is wanted.
        tolerance: that is rounding.
        again: what must hold with random weights; None if there are none.
    """

    def __init__(
        self,
        module: nn.Module,
        found: list[Choice],
        before: list[Attention],
        run: Callable[[], Watch],
        distance: Callable[[Any], float],
        tolerance: float,
        again: Again | None = None,
    ) -> None:
        self._module, self._before = module, before
        self._run, self._distance, self._tolerance = run, distance, tolerance
        self._choices, self._again = found, again
        self._picked = [0] * len(found)
        self.scaled: scales.Scaled = []

    def settle(self) -> float:
        """Sets the attributes.

        Returns:
            the distance that remains.

        Raises:
            ModelError: the module's code can't have these sizes.
            ValidationError: it runs, and computes something else.
        """
        trial = self._try(self._picked)
        while trial.run.error is not None:
            better = self._further(trial)
            if better is None:
                raise _stuck(self._module, trial.run)
            trial = better
        if trial.error <= self._tolerance:
            return trial.error
        best = trial.error
        for picked in self._others(self._alike(lambda c: c.is_read), _FAR):
            trial = self._try(picked)
            if trial.error <= self._tolerance:
                return trial.error
            best = min(best, trial.error)
        what = "the carried module does not compute what the pruned model computes"
        because = f"its outputs are off by {best:.2g} of their scale ({self._tolerance:g} is allowed)"
        hint = "carry the plan to a checkpoint file, or leave some kinds of groups out"
        raise ValidationError(what, because=because, hint=hint)

    def _try(self, picked: list[int]) -> Trial:
        """Sets the attributes, keeps the scales of attention, and runs."""
        scales.undo(self.scaled)
        self.scaled = []
        for choice, index in zip(self._choices, picked, strict=True):
            choice.set(choice.options[index])
        run, self.scaled = self._scaled_run()
        trial = Trial(run, float("inf") if run.error is not None else self._distance(run.result))
        if self._again is None or trial.error > self._tolerance:
            return trial
        error, self.scaled = self._with_random_weights(self._again)
        if error > self._again.tolerance:
            return Trial(run, error)
        if self.scaled:
            run = self._run()
            trial = Trial(run, float("inf") if run.error is not None else self._distance(run.result))
        return trial

    def _scaled_run(self) -> tuple[Watch, scales.Scaled]:
        """A run in which attention has the scale that it had, and what was multiplied for that."""
        run, scaled = self._run(), []
        if run.error is None:
            try:
                scaled = scales.keep_scales(self._module, self._before, run.attentions)
            except ModelError as error:
                run.error, run.stack = error, []
            if scaled:
                run = self._run()
        return run, scaled

    def _with_random_weights(self, again: Again) -> tuple[float, scales.Scaled]:
        """The distance with these, and the real weights multiplied as these were.

        Which rows make the queries is told by random weights even where the real ones are zeros.
        """
        plain = {id(p): scales.factor_of(p, old, torch.ones_like(p)) for p, old in self.scaled}
        scales.undo(self.scaled)
        with holding(self._module, again.tensors):
            run, scaled = self._scaled_run()
            error = float("inf") if run.error is not None else again.distance(run.result)
            factors = [
                (p, scales.factor_of(p, old, plain.get(id(p), torch.ones_like(p)))) for p, old in scaled
            ]
        return error, scales.multiply(factors)

    def _further(self, failed: Trial) -> Trial | None:
        """Other values in the module that failed, or in one around it, with which the run comes further."""
        for path in reversed(failed.run.stack):
            best, chosen = failed, None
            own = [[i] for i, choice in enumerate(self._choices) if choice.path == path]
            for picked in self._others(own, _NEAR):
                trial = self._try(picked)
                if trial.run.error is None or trial.run.calls > best.run.calls:
                    best, chosen = trial, picked
                    if trial.run.error is None or path not in trial.run.stack:
                        break
            if chosen is None:
                continue
            spread = self._spread(chosen)
            if spread != chosen:
                trial = self._try(spread)
                if trial.run.error is None or trial.run.calls > best.run.calls:
                    self._picked = spread
                    return trial
            self._picked = chosen
            return self._try(chosen)
        return None

    def _spread(self, picked: list[int]) -> list[int]:
        """What was right for one module is tried first for others of its class with the same options."""
        new = {
            (choice.like, choice.options): now
            for choice, now, old in zip(self._choices, picked, self._picked, strict=True)
            if now != old
        }
        return [
            new.get((choice.like, choice.options), index)
            for choice, index in zip(self._choices, picked, strict=True)
        ]

    def _alike(self, wanted: Callable[[Choice], bool]) -> list[list[int]]:
        """Places of choices that are made together: the same attribute of modules of one class."""
        found: dict[Any, list[int]] = defaultdict(list)
        for i, choice in enumerate(self._choices):
            if wanted(choice):
                found[choice.like].append(i)
        return list(found.values())

    def _others(self, together: list[list[int]], most: int) -> Iterator[list[int]]:
        """Other picks for these, few changes first, and first of what has the name of a size."""
        together = sorted(together, key=lambda held: not self._choices[held[0]].is_named)
        counts = [max(len(self._choices[i].options) for i in held) for held in together]
        start = tuple(self._picked[held[0]] for held in together)
        combos = islice(product(*map(range, counts)), 4096)
        changed = sorted(combos, key=lambda c: sum(a != b for a, b in zip(c, start, strict=True)))
        for combo in islice((c for c in changed if c != start), most):
            picked = list(self._picked)
            for held, index in zip(together, combo, strict=True):
                for i in held:
                    picked[i] = min(index, len(self._choices[i].options) - 1)
            yield picked


def _stuck(module: nn.Module, run: Watch) -> ModelError:
    if isinstance(run.error, ModelError):
        return run.error
    path = run.stack[-1] if run.stack else ""
    kind = type(module.get_submodule(path)).__name__
    what = f"the code of '{path or 'the module'}' can't have the new sizes"
    because = f"{type(run.error).__name__}: {str(run.error).splitlines()[0] if str(run.error) else ''}"
    hint = "leave these groups out (--exclude, --kinds), or write the sizes as attributes of the module"
    return ModelError(what, where=f"{kind}.forward", because=because[:300], hint=hint)
