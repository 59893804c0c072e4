"""The configuration of a ``transformers`` model after a cut, where it can say what has become of the sizes.

No list of names is needed: a model is built from a changed configuration without memory (device ``meta``),
and its shapes tell what a number of the configuration stands for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from graphprune.converters.carrying.torch_arrays import slots
from graphprune.converters.carrying.torch_words import kinds
from graphprune.converters.quiet import quiet

#: Models built at most; one takes milliseconds for a small model, and a second for a large one.
_BUILDS = 400
_UNSAID = (
    "config is as it was: it has no words for the new sizes ({first}{more}), so from_pretrained can't "
    "read what save_pretrained writes; torch.save(module) works"
)
_OTHER = (
    "from_pretrained gives another function after save_pretrained, since it computes {what} anew from the "
    "config; torch.save(module) works"
)
_BREAKS = "config is as it was: the module's code reads it, and computes something else with the new sizes"

#: A size before -> sizes it may be now; None stands for the size of a head that is not written down.
Changes = Mapping[int | None, frozenset[int]]


@dataclass(frozen=True)
class Move:
    """A number of the configuration, changed.

    Attributes:
        path: attributes that lead to it, such as ``("text_config", "hidden_size")``.
        value: its new value.
    """

    path: tuple[str, ...]
    value: int

    def apply(self, config: Any) -> Any:
        """Changes a configuration, and says what the number was."""
        for name in self.path[:-1]:
            config = getattr(config, name)
        old = getattr(config, self.path[-1])
        setattr(config, self.path[-1], self.value)
        return old


def configure(
    module: torch.nn.Module,
    changes: Changes,
    error: Callable[[Any], float],
    most: float,
    *,
    is_untied: bool = False,
) -> str:
    """Changes ``module.config`` where it can say all new sizes.

    Args:
        module: the carried model.
        changes: sizes before and after.
        error: how far a model is from the pruned one.
        most: that is rounding.
        is_untied: are weights two now that were one?

    Returns:
        what a user should know; empty if the model can be saved and read again.
    """
    if not hasattr(type(module), "from_pretrained") or not hasattr(
        getattr(module, "config", None), "to_dict"
    ):
        return ""
    if is_untied and getattr(module.config, "tie_word_embeddings", False):
        module.config.tie_word_embeddings = False
    # A head's size may follow from the width as long as nobody writes it down.
    sizes = {
        value
        for m in module.modules()
        for name, value in vars(m).items()
        if type(value) is int and kinds(name)[:1] == ("head_dim",)
    }
    moves, wrong = _find(module, {**changes, None: changes.get(None, frozenset()) | sizes})
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        return _UNSAID.format(first=wrong[0], more=more)
    config: Any = module.config
    olds = [move.apply(config) for move in moves]
    if moves and error(module) > most:
        for move, old in zip(reversed(moves), reversed(olds), strict=True):
            Move(move.path, old).apply(config)
        return _BREAKS
    return _read_again(module, error, most)


def _read_again(module: torch.nn.Module, error: Callable[[Any], float], most: float) -> str:
    """Is a model that is built from the config and given the weights the same function?"""
    with quiet():
        fresh: Any = type(module)(copy.deepcopy(module.config)).eval()
        fresh.to(next(module.parameters()).dtype)
        fresh.load_state_dict(module.state_dict())
    if error(fresh) <= most:
        return ""
    held = {slot.name: slot.tensor for slot in slots(fresh)}
    other = [
        slot.name
        for slot in slots(module)
        if slot.name not in held or not torch.equal(held[slot.name], slot.tensor)
    ]
    theirs = dict(fresh.named_modules())
    other += [
        f"{path}.{name}"
        for path, m in module.named_modules()
        for name, value in vars(m).items()
        if type(value) is float and vars(theirs[path]).get(name) != value
    ]
    return _OTHER.format(what=f"'{other[0]}'" if other else "something")


def _find(module: torch.nn.Module, changes: Changes) -> tuple[list[Move], list[str]]:
    """Changes of the config, and names of the tensors whose shapes it does not give then."""
    search = _Search(module)
    moves = [Move(p, new) for p, old in _numbers(module.config) for new in sorted(changes.get(old, ()))]
    chosen: list[Move] = []
    wrong = search.wrong(())
    if wrong is None:
        return [], list(module.state_dict())
    while wrong:
        taken = {move.path for move in chosen}
        free = [move for move in moves if move.path not in taken]
        # Two at once: a config may refuse either of them alone.
        pairs = (pair for pair in combinations(free, 2) if pair[0].path != pair[1].path)
        best = _best(search, chosen, [(move,) for move in free], len(wrong))
        best = best or _best(search, chosen, pairs, len(wrong))
        if best is None:
            break
        chosen, wrong = best
    return chosen, sorted({name for name, _ in wrong})


_Wrong = list[tuple[str, int]]


def _best(search: _Search, chosen: list[Move], steps: Any, most: int) -> tuple[list[Move], _Wrong] | None:
    """The step after which fewest axes have the wrong size."""
    best: tuple[list[Move], _Wrong] | None = None
    for step in steps:
        now = search.wrong((*chosen, *step))
        if now is not None and len(now) < most:
            best, most = ([*chosen, *step], now), len(now)
            if not now:
                break
    return best


class _Search:
    """Builds models from changed configurations and compares their shapes."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._cls: Any = type(module)
        self._config = module.config
        self._wanted = {name: tuple(t.shape) for name, t in module.state_dict().items()}
        self._left = _BUILDS

    def wrong(self, moves: tuple[Move, ...]) -> _Wrong | None:
        """Axes of other sizes; None if there is no such model."""
        if not self._left:
            return None
        self._left -= 1
        config = copy.deepcopy(self._config)
        try:
            with quiet(), torch.device("meta"):
                for move in moves:
                    move.apply(config)
                if moves and hasattr(config, "validate"):
                    config.validate()  # as save_pretrained does
                shapes = {name: tuple(t.shape) for name, t in self._cls(config).state_dict().items()}
        except Exception:  # it may refuse numbers that do not go together in any way
            return None
        if shapes.keys() != self._wanted.keys():
            return None
        return [
            (name, axis)
            for name, shape in self._wanted.items()
            for axis, size in enumerate(shape)
            if len(shapes[name]) != len(shape) or shapes[name][axis] != size
        ]


def _numbers(config: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int | None]]:
    """The integers above 1 of a configuration and of those inside it."""
    for name, value in config.to_dict().items():
        held = getattr(config, name, None)
        if type(held) is int and held > 1:
            yield (*path, name), held
        elif held is None and kinds(name)[:1] == ("head_dim",):
            yield (*path, name), None
        elif isinstance(value, dict) and hasattr(held, "to_dict"):
            yield from _numbers(held, (*path, name))
