"""What the name of an attribute says it counts."""

from __future__ import annotations

import re


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: A word of these, and the attribute is no size that a cut changes.
_OTHERS = _set(
    """window kernel patch image img resolution stride strides padding dilation layer layers idx index
    indices depth depths block blocks seq sequence length len max min position positions vocab vocabulary
    classes labels token tokens top topk per tok eps epsilon drop dropout ratio factor version level levels
    stage stages pool grid height rate id ids seed start end offset step steps area
    reduction upscale batches tracked beams frames time shift overlap chunk segment bucket buckets period
    order bits pad crop side sides hop fft bins rows cols iterations iters fold mask interval cache
    memory past future"""
)
_EXPERTS = _set("expert experts")
_HEADS = _set("head heads nhead nheads kv")
_GROUPS = _set("group groups cardinality")
_REPEATS = _set("rep reps repeat repeats")
_SIZES = _set(
    """dim dims size sizes channel channels chs ch chans feature features hidden embed embedding emb width
    inner planes inplanes planes split model ff ffn mlp intermediate filters nf nx units state d c
    fused qkv normalized shape in out rank inplane"""
)
_COUNTS = _set("num n number count")
#: Of a whole projection of all heads, and not of the stream that it reads.
_ALL_HEADS = _set("all attn attention inner qkv split kv q k v key value query proj")
_STREAM = _set("embed embedding model hidden")


def words(name: str) -> frozenset[str]:
    """``num_keyValueHeads2`` has the words num, key, value, heads."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return frozenset(re.findall(r"[a-z]+", spaced.lower()))


def kinds(name: str) -> tuple[str, ...]:
    """The kinds of facts that an attribute of this name may state, the likeliest first; empty: none."""
    said = words(name)
    if said & _OTHERS:
        return ()
    if said & _EXPERTS:
        return ("experts", "size") if said & _SIZES else ("experts",)
    if said & _REPEATS or (said & _GROUPS and said & (_HEADS | {"key", "value", "query"})):
        return ("repeats",)
    if said & _HEADS:
        if said & _SIZES:
            return ("size", "head_dim") if "all" in said else ("head_dim", "size")
        return ("size", "head_dim", "heads") if "kv" in said and not said & _COUNTS else ("heads",)
    if said & _GROUPS:
        return ("groups", "heads")
    if said & _SIZES:
        return ("size", "head_dim") if said & _ALL_HEADS else ("size",)
    return ()


def leaning(name: str) -> int:
    """Is it rather the width of all heads (1), of the stream around them (-1), or neither (0)?"""
    said = words(name)
    return (1 if said & _ALL_HEADS else 0) - (1 if said & _STREAM else 0)


def directions(name: str) -> frozenset[str]:
    """``in`` and ``out``, where the name says so."""
    said = words(name)
    found = set()
    if said & {"in", "input", "inplanes", "inplane"}:
        found.add("in")
    if said & {"out", "output"}:
        found.add("out")
    return frozenset(found)
