"""What a user says about an operator that graphprune has no rule for.

A declaration is an einsum-like text, ``"b c h w, c -> b c h w"``: one group of names per tensor, one
name per axis, and equal names are axes that keep the same positions.  docs/declarations.md describes the
text and the keys beside it.  This module reads and checks; :mod:`graphprune.rules.declared` makes a coupling
rule of it and :mod:`graphprune.rewrite.declared` a repair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import onnx_ir as ir

from graphprune.declaration_text import Text, TextError, parse_text
from graphprune.documents import parse_toml, read_text
from graphprune.errors import UsageError
from graphprune.registry import normal_domain
from graphprune.rules import RULES

#: What a user gives: a TOML file, or ``{"mydomain.MyOp": "b c -> b c"}`` with a text or its table of keys.
DeclarationSource: TypeAlias = "str | Path | Mapping[str, str | Mapping[str, Any]]"

_KEYS = ("axes", "statistic", "repeated", "zero", "attributes", "override")
_EXAMPLE = '"mydomain.MyOp" = "b c h w, c -> b c h w"'


@dataclass(frozen=True)
class Declaration:
    """One operator.

    Attributes:
        name: as the user wrote it.
        text: the axes of its tensors.
        statistic: names over which something is computed that depends on all positions.
        repeated: names of new axes whose positions are all alike.
        zero: which of the inputs must hold zeros at a position for the result to be zero there (and for a
            sum to leave it out): "all" (which have the axis then), "any", or None when zeros do not stay.
        attributes: integer attribute -> names whose sizes it multiplies.
    """

    name: str
    text: Text
    statistic: frozenset[str] = frozenset()
    repeated: frozenset[str] = frozenset()
    zero: str | None = None
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Declarations:
    """The declared operators of one call.

    Attributes:
        table: by (domain, operator).
        source: what they were read from, as plain data; a plan keeps it.
    """

    table: Mapping[tuple[str, str], Declaration] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)

    def find(self, node: ir.Node) -> Declaration | None:
        """The declaration of a node's operator."""
        return self.table.get((normal_domain(node.domain), node.op_type))


def read_declarations(source: DeclarationSource | None) -> Declarations:
    """Reads and checks declarations.

    Args:
        source: a path of a TOML file, or a mapping by operator.

    Raises:
        UsageError: the file can't be read, or a declaration is wrong; names the place.
    """
    if source is None:
        return Declarations()
    entries = _read_file(Path(source)) if isinstance(source, (str, Path)) else source
    where = f"in '{source}'" if isinstance(source, (str, Path)) else "in the declarations"
    if not isinstance(entries, Mapping):
        message = f"declarations are a mapping or a path, not a {type(entries).__name__}"
        raise UsageError(message, hint="{" + _EXAMPLE.replace(" =", ":") + "}")
    table: dict[tuple[str, str], Declaration] = {}
    plain: dict[str, Any] = {}
    for name, entry in entries.items():
        key, declaration = _declaration(str(name), entry, where)
        if key in table:
            raise _wrong(str(name), where, "it is declared twice")
        table[key] = declaration
        plain[str(name)] = dict(entry) if isinstance(entry, Mapping) else entry
    return Declarations(table, plain)


def _read_file(path: Path) -> Mapping[str, Any]:
    message = f"cannot read the declarations '{path}'"
    hint = f"a TOML file with lines such as {_EXAMPLE}"
    try:
        return parse_toml(read_text(path))
    except OSError as error:
        raise UsageError(message, because=str(error.strerror), hint=hint) from error
    except ValueError as error:  # tomllib's error, and bytes that are no text
        raise UsageError(message, because=str(error), hint=hint) from error


def _declaration(name: str, entry: object, where: str) -> tuple[tuple[str, str], Declaration]:
    keys = {"axes": entry} if isinstance(entry, str) else entry
    if not isinstance(keys, Mapping) or not isinstance(keys.get("axes"), str):
        hint = f'{_EXAMPLE}, or a table ["mydomain.MyOp"] with a line axes = "…" (the quotes belong there)'
        raise _wrong(name, where, "it has no text under 'axes'", hint)
    unknown = [key for key in keys if key not in _KEYS]
    if unknown:
        raise _wrong(name, where, f"unknown key '{unknown[0]}'", f"one of {', '.join(_KEYS)}")
    try:
        text = parse_text(str(keys["axes"]))
    except TextError as error:
        raise _wrong(name, where, f"{error} in {str(keys['axes'])!r}", _EXAMPLE) from error
    domain, _, op_type = name.rpartition("." if "::" not in name else "::")
    key = (normal_domain(domain), op_type)
    override = keys.get("override", False)
    if not isinstance(override, bool):
        raise _wrong(name, where, "'override' is neither true nor false")
    if not op_type:
        raise _wrong(name, where, "it names no operator", _EXAMPLE)
    if not override and any((d, o) == key for d, o, _ in RULES.ops()):
        raise _wrong(name, where, "graphprune has a rule for this operator", "override = true")
    declaration = Declaration(
        name,
        text,
        _letters(name, where, keys, "statistic", text.inputs_letters),
        _letters(name, where, keys, "repeated", text.outputs_letters - text.inputs_letters),
        _zero(name, where, keys.get("zero", False)),
        _attributes(name, where, keys.get("attributes", {}), text),
    )
    return key, declaration


def _letters(
    name: str, where: str, keys: Mapping[str, Any], key: str, allowed: frozenset[str]
) -> frozenset[str]:
    given = keys.get(key, [])
    if not isinstance(given, (list, tuple)) or not all(isinstance(letter, str) for letter in given):
        raise _wrong(name, where, f"'{key}' is no list of names", f'{key} = ["c"]')
    for letter in given:
        if letter not in allowed:
            side = "any input" if key == "statistic" else "an output alone"
            raise _wrong(name, where, f"'{key}' names '{letter}', which is no axis of {side}")
    return frozenset(given)


def _zero(name: str, where: str, given: object) -> str | None:
    known = {True: "all", False: None, "all": "all", "any": "any"}
    if not isinstance(given, (bool, str)) or given not in known:
        raise _wrong(name, where, f"'zero' is {given!r}", 'zero = true, zero = false, or zero = "any"')
    return known[given]


def _attributes(name: str, where: str, given: object, text: Text) -> dict[str, tuple[str, ...]]:
    if not isinstance(given, Mapping):
        raise _wrong(name, where, "'attributes' is no table", 'attributes = { num_heads = "h" }')
    found = {}
    for attribute, letters in given.items():
        names = tuple(letters.split()) if isinstance(letters, str) else ()
        wrong = [n for n in names if n not in text.inputs_letters | text.outputs_letters]
        if not names or wrong:
            because = f"attribute '{attribute}' follows {letters!r}, which is no axis in the text"
            raise _wrong(name, where, because)
        found[str(attribute)] = names
    return found


def _wrong(name: str, where: str, because: str, hint: str | None = None) -> UsageError:
    message = f"cannot use the declaration of '{name}'"
    return UsageError(message, where=where, because=because, hint=hint)
