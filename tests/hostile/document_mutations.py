"""Mutations of the other files that commands read: plans, samples, jobs and declarations."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from typing import Any

import numpy as np
from byte_mutations import blind
from message_mutations import FLOATS, NUMBERS, TEXTS, pick

Rng = np.random.Generator


#: Stands for lists in lists, which the library would not write.
DEEP = "@deep@"


def plan(text: str, rng: Rng) -> tuple[bytes, str]:
    """A plan with one thing changed."""
    if rng.integers(4) == 0:
        return blind(text.encode(), rng)
    document = json.loads(text)
    what = json_value(document, rng)
    return json.dumps(document).replace(f'"{DEEP}"', "[" * 5000 + "]" * 5000).encode(), what


def json_value(document: Any, rng: Rng) -> str:
    """Changes one value of a document, in place."""
    owner, path = document, ""
    while True:
        keys = list(owner) if isinstance(owner, dict) else list(range(len(owner)))
        if not keys:
            key: Any = "new"
            if isinstance(owner, dict):
                owner[key] = any_value(rng)
            else:
                owner.append(any_value(rng))
            return f"added to {path}"
        key = pick(rng, keys)
        path += f".{key}"
        if isinstance(owner[key], (dict, list)) and rng.integers(6):
            owner = owner[key]
            continue
        change = int(rng.integers(6))
        if change == 0:
            del owner[key]
            return f"removed {path}"
        if change == 1 and isinstance(owner, list):
            owner.append(owner[key])
            return f"repeated {path}"
        if change == 2 and isinstance(owner, list):
            owner.reverse()
            return f"reversed around {path}"
        if change == 3 and isinstance(owner, dict):
            owner[pick(rng, TEXTS)] = owner.pop(key)
            return f"renamed {path}"
        owner[key] = any_value(rng)
        return f"{owner[key]!r:.40} at {path}"


def any_value(rng: Rng) -> Any:
    """Something of any type."""
    kind = int(rng.integers(8))
    return (
        pick(rng, NUMBERS), pick(rng, FLOATS), pick(rng, TEXTS), None, True, [], {},
        pick(rng, [DEEP, 10**400, {"a": [1]}, [[0]], "\ud800", -0.5]),
    )[kind]  # fmt: skip


def samples(arrays: dict[str, Any], rng: Rng) -> tuple[bytes, str]:
    """An archive of samples with something wrong."""
    change = int(rng.integers(9))
    found = dict(arrays)
    name = pick(rng, sorted(found))
    if change == 0:
        found[name] = np.array([{"any": "object"}], object)
    elif change == 1:
        found[name] = found[name].astype(pick(rng, ["f8", "i4", "c8", "S3", "U2", "f2", "?", "M8[s]"]))
    elif change == 2:
        found[name] = found[name][..., :0] if rng.integers(2) else found[name][:0]
    elif change == 3:
        found[name] = np.full_like(found[name], pick(rng, FLOATS) if found[name].dtype.kind == "f" else 10**6)
    elif change == 4:
        found[pick(rng, [t for t in TEXTS if t and "\x00" not in t and len(t) < 200])] = found.pop(name)
    elif change == 5:
        found[name] = found[name].reshape(-1)
    elif change == 6:
        return pickle.dumps(found), "a pickle"
    data = io.BytesIO()
    np.savez(data, **found)
    if change == 7:
        return _huge_header(data.getvalue()), "a header that announces much"
    if change == 8:
        return blind(data.getvalue(), rng)
    return data.getvalue(), f"samples, change {change}"


def _huge_header(data: bytes) -> bytes:
    """The same archive, whose arrays claim to have a trillion elements."""
    new = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(new, "w") as archive:
        for entry in old.namelist():
            header = (
                b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }".ljust(117) + b"\n"
            )
            archive.writestr(entry, b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    return new.getvalue()


JOB = """
[model]
path = "model.onnx"
out = "out.onnx"
dims = { batch = 2 }
[target]
macs = 0.6
[options]
criterion = "l2"
kinds = ["channels"]
seed = 3
"""

DECLARATION = """
[[operator]]
op = "com.example::Mystery"
axes = "[B, C] -> [B, C]"
"""


def toml(text: str, rng: Rng) -> tuple[bytes, str]:
    """A TOML file with one line changed."""
    lines = text.strip().splitlines()
    change = int(rng.integers(5))
    at = int(rng.integers(len(lines)))
    if change == 0:
        del lines[at]
    elif change == 1:
        lines.insert(at, lines[int(rng.integers(len(lines)))])
    elif change == 2:
        key = lines[at].partition("=")[0]
        values = ["1e999", "nan", "-1", '""', "[[[[]]]]", "{}", "true", "1979-05-27", "[" * 3000, "9" * 5000]
        texts = [json.dumps(t) for t in TEXTS]
        lines[at] = f"{key}= {pick(rng, [*values, *texts])}"
    elif change == 3:
        lines[at] = pick(
            rng, ["jobs = 1", "[jobs.a]", "[[target]]", "!!python/object", "\ufeff", "a.b.c = 1"]
        )
    else:
        return blind(text.encode(), rng)
    return "\n".join(lines).encode(), f"toml line {at}, change {change}"
