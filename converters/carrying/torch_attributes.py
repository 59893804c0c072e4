"""Integers in a module's attributes that may be sizes which a cut has changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from graphprune.converters.carrying import torch_words as words
from graphprune.converters.carrying.torch_arrays import slots
from graphprune.converters.carrying.torch_facts import Fact, Sizes
from graphprune.converters.carrying.torch_layers import RULES
from torch import nn

#: Leaf layers of torch whose numbers are sizes of what flows through them.
_FLOWING = (nn.Unflatten, nn.ChannelShuffle)


@dataclass(eq=False)
class Choice:
    """One integer, and what it may have to become.

    Attributes:
        path: of the module.
        module: that holds it.
        attribute: its name.
        key: position or key in a tuple, list or dict; None for a plain integer.
        before: its value.
        options: values it may get, the likeliest first.
        is_read: does the module's code read it when it runs?
        is_named: does the name say that it is a size?
    """

    path: str
    module: nn.Module
    attribute: str
    key: Any
    before: int
    options: tuple[int, ...]
    is_read: bool
    is_named: bool

    @property
    def like(self) -> tuple[Any, ...]:
        """Equal for the same attribute of modules of one class."""
        return (type(self.module), self.attribute, self.key)

    def set(self, value: int) -> None:
        """Gives the attribute another value; containers are made anew, since modules may share one."""
        held: Any = vars(self.module)[self.attribute]
        if isinstance(held, dict):
            new: Any = {**held, self.key: value}
        elif isinstance(held, (tuple, list)):
            items: Any = [value if i == self.key else item for i, item in enumerate(held)]
            new = type(held)(items) if not hasattr(held, "_fields") else type(held)(*items)
        else:
            new = value
        vars(self.module)[self.attribute] = new


def choices(
    module: nn.Module,
    sizes: Sizes,
    settled: Mapping[str, frozenset[str]],
    reads: Mapping[str, set[str]] | None,
) -> list[Choice]:
    """All integers that equal something that has changed.

    Args:
        module: already cut.
        sizes: before and after.
        settled: path of a module -> attributes that are settled.
        reads: path of a module -> attributes that its code reads; None: not known.
    """
    by_path: dict[str, list[str]] = {}
    for slot in slots(module):
        by_path.setdefault(slot.path, []).append(slot.name)
    roles = _roles(module)
    found: list[Choice] = []
    for path, m in module.named_modules():
        if type(m).__module__.startswith("torch.nn") and not (
            isinstance(m, _FLOWING) or next(m.children(), None) is not None
        ):
            continue
        if isinstance(m, tuple(cls for cls, _, _ in RULES)) and type(m).__module__.startswith("torch."):
            continue
        own = [name for name in integers(m) if name[0] not in settled.get(path, ())]
        if not own:
            continue
        close = sizes.facts(near(path, m, by_path))
        far: list[Fact] | None = None
        for attribute, key, value in own:
            is_read = reads is None or attribute in reads.get(path, ())
            options = _options(attribute, value, close, roles)
            if not options and (is_read or len(by_path) < 2 or words.kinds(attribute)):
                far = sizes.facts(_below(path, by_path)) if far is None else far
                options = _options(attribute, value, far, roles)
                if not is_read and len(options) > 1:
                    continue  # a number that nothing reads, and nobody can tell what it should be
            named = bool(words.kinds(attribute))
            if not named:
                options = (value, *(option for option in options if option != value))
            elif options and is_read and value not in options:
                options = (*options, value)  # a name may mislead
            if any(option != value for option in options) and (named or is_read):
                found.append(Choice(path, m, attribute, key, value, options, is_read, named))
    return found


def integers(m: nn.Module) -> Iterator[tuple[str, Any, int]]:
    """Attributes of a module above 1: name, key in a container or None, value."""
    for name, value in vars(m).items():
        if name.startswith("_") and name.lstrip("_") in _INTERNAL:
            continue
        if type(value) is int:
            items: list[tuple[Any, Any]] = [(None, value)]
        elif isinstance(value, (tuple, list)):
            items = list(enumerate(value))
        elif type(value) is dict:
            items = list(value.items())
        else:
            continue
        yield from ((name, key, item) for key, item in items if type(item) is int and item > 1)


_INTERNAL = frozenset({"version", "parameters", "buffers", "modules", "is_full_backward_hook"})


def near(path: str, m: nn.Module, by_path: Mapping[str, list[str]]) -> list[str]:
    """Tensors of the module and of its children."""
    paths = [path, *(f"{path}.{name}" if path else name for name, _ in m.named_children())]
    return [name for p in paths for name in by_path.get(p, ())]


def _below(path: str, by_path: Mapping[str, list[str]]) -> list[str]:
    """Tensors of all that is in the module; of its surroundings if it has none."""
    prefix = path
    while True:
        found = [n for p, names in by_path.items() if _is_within(p, prefix) for n in names]
        if found or not prefix:
            return found
        prefix = prefix.rpartition(".")[0]


def _is_within(path: str, prefix: str) -> bool:
    return not prefix or path == prefix or path.startswith(f"{prefix}.")


def _roles(module: nn.Module) -> dict[tuple[str, int], str]:
    """Which axes of torch's own layers are inputs, and which outputs."""
    found: dict[tuple[str, int], str] = {}
    for path, m in module.named_modules():
        if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd)):
            swapped = getattr(m, "transposed", False)
            found[f"{path}.weight", 0] = "in" if swapped else "out"
            found[f"{path}.weight", 1] = "out" if swapped else "in"
            found[f"{path}.bias", 0] = "out"
    return found


def _options(
    name: str, value: int, facts: list[Fact], roles: Mapping[tuple[str, int], str]
) -> tuple[int, ...]:
    """What the value may have become, by how well a fact fits the name."""
    said = words.kinds(name)
    rank = {kind: i for i, kind in enumerate(said)}
    lean, directions = words.leaning(name), words.directions(name)
    best: dict[int, tuple[int, int, int, int]] = {}
    votes: dict[int, int] = {}
    for fact in facts:
        if fact.before != value or (said and fact.kind not in rank):
            continue
        if fact.kind == "size" and fact.steps > 1 and said[:1] == ("head_dim",):
            continue  # a third of a width is no head
        apart = int(lean != 0 and (lean > 0) != fact.has_heads)
        aside = int(bool(directions) and roles.get((fact.tensor, fact.axis)) not in directions)
        key = (rank.get(fact.kind, 0), apart, aside, fact.steps)
        best[fact.after] = min(best.get(fact.after, key), key)
        votes[fact.after] = votes.get(fact.after, 0) + 1
    ordered = sorted(best, key=lambda after: (best[after], -votes[after]))
    if ordered and value not in best and all(steps > 1 for *_, steps in best.values()):
        ordered.append(value)  # nothing shows it itself, so it may be none of these
    return tuple(ordered)
