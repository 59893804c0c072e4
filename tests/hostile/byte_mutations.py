"""Mutations of bytes, blind or along the protobuf wire format."""

from __future__ import annotations

import numpy as np

from graphprune.storage.wire import BYTES, VARINT, Field, fields, varint

Rng = np.random.Generator
_INTERESTING = (
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\xff",
    b"\xff" * 9 + b"\x01",
    b"\xc3\x28",
    b"\xed\xa0\x80",
)


def blind(data: bytes, rng: Rng) -> tuple[bytes, str]:
    """Flips, overwrites, inserts, removes, doubles or cuts off bytes."""
    if not data:
        return data, "nothing"
    found = bytearray(data)
    at = int(rng.integers(len(found)))
    size = int(rng.integers(1, 17))
    change = int(rng.integers(7))
    if change == 0:
        for place in rng.integers(len(found), size=int(rng.integers(1, 9))):
            found[place] ^= 1 << int(rng.integers(8))
        return bytes(found), "bits flipped"
    if change == 1:
        found[at : at + size] = rng.bytes(size)
        return bytes(found), f"{size} bytes at {at} overwritten"
    if change == 2:
        found[at:at] = rng.bytes(size)
        return bytes(found), f"{size} bytes inserted at {at}"
    if change == 3:
        del found[at : at + size]
        return bytes(found), f"{size} bytes removed at {at}"
    if change == 4:
        found[at:at] = found[at : at + 16 * size]
        return bytes(found), f"{16 * size} bytes doubled at {at}"
    if change == 5:
        known = _INTERESTING[int(rng.integers(len(_INTERESTING)))]
        found[at : at + len(known)] = known
        return bytes(found), f"{known!r} at {at}"
    return bytes(found[:at]), f"cut off at {at}"


def along_the_wire(data: bytes, rng: Rng) -> tuple[bytes, str]:
    """Changes one field at any depth, and the lengths around it so that the rest can be read."""
    chain: list[Field] = []
    start, end = 0, len(data)
    while True:
        try:
            found = list(fields(data, start, end))
        except ValueError:
            break
        if not found or (chain and rng.integers(5) == 0):
            break
        field = found[int(rng.integers(len(found)))]
        chain.append(field)
        if field.kind != BYTES or field.end == field.start:
            break
        start, end = field.start, field.end
    if not chain:
        return blind(data, rng)
    last = chain[-1]
    new, what = _changed(data, last, rng)
    inner = data[: last.tag][chain[-2].start if len(chain) > 1 else 0 :] + new
    result = inner + data[last.end : chain[-2].end if len(chain) > 1 else len(data)]
    for outer, above in zip(chain[-2::-1], [*chain[-3::-1], None], strict=False):
        left = above.start if above is not None else 0
        right = above.end if above is not None else len(data)
        head = varint(outer.number << 3 | BYTES) + varint(len(result))
        result = data[left : outer.tag] + head + result + data[outer.end : right]
    return result, f"{what} in field {'.'.join(str(f.number) for f in chain)}"


def _changed(data: bytes, field: Field, rng: Rng) -> tuple[bytes, str]:
    whole, content = data[field.tag : field.end], data[field.start : field.end]
    change = int(rng.integers(5))
    if change == 0:
        return b"", "removed"
    if change == 1:
        return whole * int(rng.integers(2, 5)), "repeated"
    if change == 2:  # another number, the same content
        number = int(rng.integers(1, 30))
        return varint(number << 3 | field.kind) + data[
            field.tag + len(varint(field.number << 3)) : field.end
        ], "moved"
    if field.kind == VARINT:
        value = int(rng.choice([0, 1, 2, 127, 255, 1 << 31, 1 << 40, (1 << 63) - 1, (1 << 64) - 1]))
        return varint(field.number << 3 | VARINT) + varint(value), f"the number {value}"
    if field.kind == BYTES:
        content, _ = blind(content, rng)
        if rng.integers(4) == 0:
            content = _INTERESTING[int(rng.integers(len(_INTERESTING)))] * int(rng.integers(1, 50))
        return varint(field.number << 3 | BYTES) + varint(len(content)) + content, "other bytes"
    return whole[: -len(content)] + rng.bytes(len(content)), "other bytes"
