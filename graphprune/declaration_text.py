"""The text of a declaration: ``"b l (h d), [l l] -> b h l"``.

Groups are separated by commas, inputs from outputs by ``->``.  Within a group:

* ``c`` is an axis, ``(h d)`` an axis that is a product, outermost first, ``1`` an axis of size 1;
* ``c!`` may not shrink (said once, it holds for every ``c``);
* ``...`` in front stands for any number of leading axes, the same for all groups that have it;
* ``_`` alone is a tensor that nothing is said about: it stays as it is;
* ``[c]`` in brackets is an input that may be absent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

_TOKEN = re.compile(r"\s*(\.\.\.|->|[A-Za-z][A-Za-z0-9_]*!?|1(?![\w])|[(),\[\]_]|\S)")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*!?$")

#: Names of an axis' factors; none for an axis of size 1.
Factors = tuple[str, ...]


class TextError(ValueError):
    """The text can't be read; the message says why."""


class SizeError(ValueError):
    """A node's shapes do not fit the text; the message says how."""


@dataclass(frozen=True)
class Tensor:
    """One group of the text.

    Attributes:
        axes: factors of each axis.
        leading: any number of further axes in front.
        is_described: False for a tensor that nothing is said about.
        is_optional: may it be absent?
    """

    axes: tuple[Factors, ...] = ()
    leading: bool = False
    is_described: bool = True
    is_optional: bool = False

    def expanded(self, rank: int) -> list[Factors]:
        """Factors of every axis of a tensor of this rank; leading axes are called ``...0``, ``...1``.

        Raises:
            SizeError: the text has another number of axes.
        """
        extra = rank - len(self.axes)
        if extra < 0 or (extra and not self.leading):
            message = f"a tensor has {rank} axes, and its declaration {len(self.axes)}"
            raise SizeError(message)
        return [*((f"...{i}",) for i in range(extra)), *self.axes]


@dataclass(frozen=True)
class Text:
    """A whole declaration's axes.

    Attributes:
        inputs: the groups before the arrow.
        outputs: those behind it.
        frozen: names that may not shrink.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    frozen: frozenset[str] = field(default_factory=frozenset)

    @property
    def inputs_letters(self) -> frozenset[str]:
        """Names on the left."""
        return _letters(self.inputs)

    @property
    def outputs_letters(self) -> frozenset[str]:
        """Names on the right."""
        return _letters(self.outputs)


def _letters(tensors: Iterable[Tensor]) -> frozenset[str]:
    return frozenset(letter for tensor in tensors for axis in tensor.axes for letter in axis)


def parse_text(text: str) -> Text:
    """Reads a declaration's text.

    Raises:
        TextError: it is malformed.
    """
    tokens = _TOKEN.findall(text)
    if tokens.count("->") != 1:
        message = "there is not exactly one '->'"
        raise TextError(message)
    at = tokens.index("->")
    frozen: set[str] = set()
    inputs, outputs = (_groups(side, frozen) for side in (tokens[:at], tokens[at + 1 :]))
    if any(t.is_optional for t in outputs):
        message = "brackets around an output"
        raise TextError(message)
    if any(t.leading for t in outputs) and not any(t.leading for t in inputs):
        message = "no input has the leading axes '...' of an output"
        raise TextError(message)
    return Text(inputs, outputs, frozenset(frozen))


def _groups(tokens: Sequence[str], frozen: set[str]) -> tuple[Tensor, ...]:
    groups: list[list[str]] = [[]]
    for token in tokens:
        if token == ",":
            groups.append([])
        else:
            groups[-1].append(token)
    return tuple(_tensor(group, frozen) for group in groups)


def _tensor(tokens: list[str], frozen: set[str]) -> Tensor:
    if not tokens:
        message = "an empty group (a tensor that nothing is said about is '_')"
        raise TextError(message)
    is_optional = tokens[0] == "["
    if is_optional:
        if tokens[-1] != "]":
            message = "'[' without ']'"
            raise TextError(message)
        tokens = tokens[1:-1]
    if tokens == ["_"]:
        return Tensor(is_described=False, is_optional=is_optional)
    leading = tokens[:1] == ["..."]
    axes: list[Factors] = []
    inner: list[str] | None = None
    for token in tokens[1:] if leading else tokens:
        if token == "(" and inner is None:
            inner = []
        elif token == ")" and inner:
            axes.append(tuple(inner))
            inner = None
        elif _NAME.match(token):
            letter = token.removesuffix("!")
            frozen |= {letter} if token.endswith("!") else set()
            if inner is None:
                axes.append((letter,))
            elif letter in inner:
                message = f"'{letter}' twice in one product"
                raise TextError(message)
            else:
                inner.append(letter)
        elif token == "1" and inner is None:
            axes.append(())
        else:
            message = f"unexpected '{token}'"
            raise TextError(message)
    if inner is not None:
        message = "'(' without ')'"
        raise TextError(message)
    return Tensor(tuple(axes), leading, is_optional=is_optional)


def solve_sizes(products: Iterable[tuple[Factors, int]], *, whole: bool = True) -> dict[str, int]:
    """Size of every name, from the sizes of products of them.

    Args:
        products: names, and the size of their product.
        whole: every name must get a size.

    Raises:
        SizeError: they contradict each other, or leave a size open.
    """
    todo = list(dict.fromkeys(products))
    sizes: dict[str, int] = {}
    while True:
        rest = []
        for letters, size in todo:
            unknown = [letter for letter in letters if letter not in sizes]
            known = prod(sizes[letter] for letter in letters if letter in sizes)
            if len(unknown) > 1:
                rest.append((letters, size))
                continue
            fits = size % known == 0 if unknown and known else size == known
            if not fits:
                message = f"'{' '.join(letters) or '1'}' is {size} here and {_told(letters, sizes)} elsewhere"
                raise SizeError(message)
            if unknown:
                sizes[unknown[0]] = size // known
        if not rest or (len(rest) == len(todo) and not whole):
            return sizes
        if len(rest) == len(todo):
            letters = rest[0][0]
            message = f"the sizes of {' and '.join(letters)} can't be told from their product {rest[0][1]}"
            raise SizeError(message)
        todo = rest


def _told(letters: Factors, sizes: Mapping[str, int]) -> str:
    return " * ".join(str(sizes.get(letter, "?")) for letter in letters) or "1"
