"""Does a ``.pt2`` file hold a program and tensors alone? torch's loader runs whatever else is in it.

It unpickles what it needs, evaluates sizes and guards as Python, and calls functions by their names. So what
is not known to be harmless here needs trust.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graphprune.converters import parity
from graphprune.converters.torch import require_torch

from graphprune.errors import ModelError

#: Members that are text for torch, and nothing else.
_TEXT = frozenset({
    "archive_format", "archive_version", "byteorder", "version", ".data/version", ".data/serialization_id",
})  # fmt: skip
_PROGRAM = re.compile(r"(.*/)?(models/[^/]+|serialized_exported_program)\.json")
_CONFIG = re.compile(r"(.*/)?data/(weights|constants)/[^/]*_config\.json")
#: Operators, and functions of sizes. No part begins with two underscores.
_TARGET = re.compile(
    r"torch\.ops(\.(?!__)\w+){2,3}|math\.(?!_)\w+|torch\.(_?sym_)\w+|_operator\."
    r"(add|sub|mul|floordiv|truediv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_|xor|getitem|lshift|rshift)"
)
_SYMBOL = re.compile(r"[\w.+-]*")  # numbers are quoted as well
#: Specifications of arguments may import modules for these.
_IMPORTS = re.compile(r"__enum__|defaultdict|\\u", re.IGNORECASE)
_SIZES = frozenset({"size", "stride", "storage_offset", "shape"})
_ARITHMETIC = (
    ast.Expression, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Subscript, ast.Load, ast.keyword,
    ast.boolop, ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip


def require_harmless(path: Path) -> None:
    """Looks at a ``.pt2`` file without running anything that is in it.

    Raises:
        ModelError: it is no archive, or something in it could run code.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = _suspicious(archive)
    except (OSError, ValueError, KeyError, RecursionError, zipfile.BadZipFile) as error:
        what = f"torch cannot load the program '{path}'"
        raise ModelError(what, because=parity.first_line(error)) from error
    if found is not None:
        what = f"loading '{path}' could run code that is in it"
        hint = "--trust (trust=True) if you know who made the file; else module:factory"
        raise ModelError(what, because=found, hint=hint)


def _suspicious(archive: zipfile.ZipFile) -> str | None:
    """What needs trust, or None."""
    members = {name.lower(): name for name in archive.namelist()}  # torch finds them in either case
    if len(members) != len(archive.namelist()):
        return "two of its members have one name"
    raw: set[str] = set()
    for lower, name in members.items():
        if _CONFIG.fullmatch(lower):
            folder = lower.rpartition("/")[0]
            for entry in json.loads(archive.read(name))["config"].values():
                payload = f"{folder}/{entry['path_name']}".lower()
                if not str(entry["path_name"]).startswith(("weight_", "tensor_")):
                    return f"'{entry['path_name']}' holds an object of a class of its own"
                if not entry["use_pickle"]:
                    raw.add(payload)
                elif not _is_tensors(archive, members.get(payload)):
                    return f"'{entry['path_name']}' holds other objects than tensors"
        elif _PROGRAM.fullmatch(lower):
            for text in _unknown(json.loads(archive.read(name))):
                return f"its program refers to '{text[:100]}'"
    for lower, name in members.items():
        inner = lower.partition("/")[2]
        is_text = lower in _TEXT or inner in _TEXT or inner.startswith("extra/")
        is_note = lower.startswith("extra_files/") and "/" not in inner
        is_read = _CONFIG.fullmatch(lower) or _PROGRAM.fullmatch(lower) or lower in raw
        if not (is_text or is_note or is_read or name.endswith("/") or _is_tensors(archive, name)):
            return f"'{name}' holds other objects than tensors"
    return None


def _is_tensors(archive: zipfile.ZipFile, name: str | None) -> bool:
    """Does torch load it as tensors and plain containers?"""
    if name is None:
        return False
    content = archive.read(name)
    try:
        require_torch().load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception:  # unpickling and zip errors of many kinds
        return not content
    return True


def _unknown(found: Any) -> Iterator[str]:
    """Names and expressions of a program that are not known to be harmless."""
    if isinstance(found, list):
        for item in found:
            yield from _unknown(item)
    if not isinstance(found, dict):
        return
    for key, value in found.items():
        if (key == "target" and "inputs" in found) or key == "as_operator":
            if not _TARGET.fullmatch(str(value)):
                yield str(value)
        elif key in ("expr_str", "guards_code", "range_constraints"):
            texts = [value] if isinstance(value, str) else list(value or ())
            yield from (str(text) for text in texts if not _is_arithmetic(str(text)))
        elif key in ("in_spec", "out_spec") and _IMPORTS.search(str(value)):
            yield str(value)
        yield from _unknown(value)


def _is_arithmetic(text: str) -> bool:
    """Numbers, symbols, sizes of inputs, and sympy's functions of these."""
    if "\n" in text or "#" in text:
        return False
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError):
        return False
    return all(_is_harmless(node) for node in nodes)


def _is_harmless(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        is_text = isinstance(node.value, str) and _SYMBOL.fullmatch(node.value)
        return bool(is_text) or isinstance(node.value, (bool, int, float))
    if isinstance(node, ast.Attribute):
        return node.attr in _SIZES
    if isinstance(node, ast.Name):
        return not node.id.startswith("_")
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name):  # sympy's classes; what Python itself can call is lower case
            return node.func.id[:1].isupper() or node.func.id in ("sqrt", "log", "floor", "ceiling", "sign")
        return isinstance(node.func, ast.Attribute)
    return isinstance(node, _ARITHMETIC)
