"""What a Reshape's target becomes when the tensor that it reads has shrunk."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import product
from math import prod

from graphprune.errors import ModelError

Dims = Sequence[int | None]


def reshaped(
    target: Sequence[int], before: Dims, after: Dims, sizes: Mapping[int, Collection[int]], where: str
) -> tuple[int, ...]:
    """The target for the smaller input.

    Input and target are read as products that agree piece by piece (``8*8, 32`` and ``64, 4*8``); within a
    piece every size is kept or becomes what the plan leaves of a group of that size.

    Args:
        target: sizes without the batch, one of them perhaps -1.
        before: the input's sizes without the batch.
        after: its new ones.
        sizes: size of a group -> what the plan leaves of such groups.
        where: the layer, for messages.

    Raises:
        ModelError: several targets are possible, or none.
    """
    if list(before) == list(after):
        return tuple(target)
    if None in before or None in after:
        raise _unclear(where, "its input has free sizes")
    old, new = [int(n or 0) for n in before], [int(n or 0) for n in after]
    whole = [n if n != -1 else prod(old) // prod(m for m in target if m != -1) for n in target]
    found: list[int] = []
    for given, made in _pieces(old, whole, where):
        wanted = prod(new[i] for i in given)
        if wanted == prod(old[i] for i in given):
            found += [whole[i] for i in made]
            continue
        choices = [sorted({whole[i], *sizes.get(whole[i], ())}) if len(made) > 1 else [wanted] for i in made]
        fitting = [choice for choice in product(*choices) if prod(choice) == wanted]
        if len(fitting) != 1:
            said = "no target fits" if not fitting else "several targets fit"
            raise _unclear(where, f"{said} its new input {tuple(new)}")
        found += fitting[0]
    return tuple(-1 if asked == -1 else n for asked, n in zip(target, found, strict=True))


def _pieces(old: Sequence[int], new: Sequence[int], where: str) -> list[tuple[list[int], list[int]]]:
    """Runs of axes of both sides with equal products, as short as possible."""
    pieces: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        left: list[int] = []
        right: list[int] = []
        a = b = 1
        while not left or not right or a != b:
            if (a <= b or j == len(new)) and i < len(old):
                a, i = a * old[i], i + 1
                left.append(i - 1)
            elif j < len(new):
                b, j = b * new[j], j + 1
                right.append(j - 1)
            elif a == b:
                break
            else:
                raise _unclear(where, f"{tuple(old)} and {tuple(new)} don't agree")
        pieces.append((left, right))
    return pieces


def _unclear(where: str, because: str) -> ModelError:
    what = "there is no telling what becomes of a Reshape's target"
    return ModelError(what, where=f"layer '{where}'", because=because, hint="a target with -1 there")
