"""Which module an ONNX node belongs to, as far as names tell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from graphprune.converters.carrying.places import Place

_SEPARATORS = re.compile(r"[./:]+")
# Keras numbers a layer that is called again: "Conv1_1" is "Conv1".
_AGAIN = "_1"


@lru_cache(maxsize=65536)
def tokens(text: str) -> tuple[str, ...]:
    """``/encoder/layer.3/norm`` as (encoder, layer, 3, norm)."""
    return tuple(token for token in _SEPARATORS.split(text) if token)


def module_of(name: str) -> str:
    """Name of an array without its last part: ``layer1.0.bn1`` of ``layer1.0.bn1.weight``."""
    at = max(name.rfind("."), name.rfind("/"))
    return name[:at] if at >= 0 else ""


def leaf_of(name: str) -> str:
    """The last part of an array's name."""
    return name[max(name.rfind("."), name.rfind("/")) + 1 :]


def beside(name: str, leaf: str) -> str:
    """The name of another array of the same module."""
    at = max(name.rfind("."), name.rfind("/"))
    return f"{name[: at + 1]}{leaf}"


def is_same_name(constant: str, source: str) -> bool:
    """Is the one name the other with a prefix, as wrappers add it?"""
    one, other = tokens(constant.split(":")[0]), tokens(source.split(":")[0])
    shorter = min(len(one), len(other))
    same = shorter > 0 and one[-shorter:] == other[-shorter:]
    return same and (one == other or not all(part.isdigit() for part in one[-shorter:]))


def best(hints: Sequence[str], modules: Sequence[str], *, whole: bool = False) -> set[str]:
    """The modules whose names stand in one of these texts best; several if they can't be told apart.

    All of them where the texts name none.

    Args:
        hints: texts that may name a module.
        modules: to choose from.
        whole: only those whose whole name stands there.
    """
    found = {m: max((_score(h, tokens(m)) for h in hints), default=None) for m in modules}
    scores = {m: score for m, score in found.items() if score is not None and score > -len(tokens(m))}
    if whole:
        scores = {m: score for m, score in scores.items() if score == len(tokens(m))}
    elif not scores:
        return set(modules)
    top = max(scores.values(), default=-1)
    return {module for module, score in scores.items() if score == top}


def _score(text: str, module: tuple[str, ...]) -> int:
    """Parts of the module's name that the text has, in order, less those that it lacks.

    A number alone says nothing: "input.4" is a tensor, and "layers.4" a module.  Where the module has no
    other name, the text must be a path.
    """
    hint = tokens(text)
    words = [part for part in module if not part.isdigit()]
    if words and not any(_matches(part, own) for part in hint for own in words):
        return -len(module)
    if not words and not text.startswith("/") and hint[: len(module)] != module:
        return -len(module)
    row = [0] * (len(module) + 1)
    for part in hint:
        above = row[:]
        for i, own in enumerate(module):
            row[i + 1] = above[i] + 1 if _matches(part, own) else max(row[i], above[i + 1])
    return 2 * row[-1] - len(module)


def _matches(part: str, own: str) -> bool:
    return part == own or part == own + _AGAIN


def by_scope(place: Place, names: Sequence[str]) -> list[str]:
    """The arrays among these that belong to the module of a node, as far as its names tell."""
    modules = best(place.hints, list(dict.fromkeys(map(module_of, names))))
    return [name for name in names if module_of(name) in modules]
