"""Which of several arrays with equal numbers belongs to which place that reads these numbers.

Fresh networks have hundreds of equal vectors, and exporters merge them into one constant.  Names of nodes
tell where each use belongs; where they don't, the order in the source does, and that is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir
from graphprune.converters.carrying.hints import by_scope, is_same_name, module_of
from graphprune.converters.carrying.links import Link
from graphprune.converters.carrying.norms import INPUTS, role_of
from graphprune.converters.carrying.places import Place

#: Ways in which a constant can be made, by the array that it is made of.
Candidates = Mapping[str, Link]


@dataclass
class Assignment:
    """Who takes what.

    Attributes:
        chosen: place -> name of the array and how it was told from the others.
        doubtful: sets of arrays among which only their order decided.
        equal: sets of all arrays that hold the same numbers.
    """

    chosen: dict[Place, tuple[str, str]] = field(default_factory=dict)
    doubtful: list[tuple[str, ...]] = field(default_factory=list)
    equal: list[tuple[str, ...]] = field(default_factory=list)


def assign(wanted: Mapping[Place, Sequence[str]], order: Mapping[str, int]) -> Assignment:
    """Gives every place one of its candidates.

    Args:
        wanted: place -> arrays that hold its numbers, in the graph's order.
        order: of all arrays in the source.
    """
    result = Assignment()
    for places in _connected(wanted):
        names = sorted({n for p in places for n in wanted[p]}, key=lambda n: order[n])
        if len(names) > 1:
            result.equal.append(tuple(names))
        _assign_equal(places, wanted, names, result)
    return result


def _connected(wanted: Mapping[Place, Sequence[str]]) -> list[list[Place]]:
    """Places that share candidates, directly or through others."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    for names in wanted.values():
        for name in names[1:]:
            leader[find(name)] = find(names[0])
    groups: dict[str, list[Place]] = {}
    for place, names in wanted.items():
        groups.setdefault(find(names[0]), []).append(place)
    return list(groups.values())


def _assign_equal(
    places: Sequence[Place], wanted: Mapping[Place, Sequence[str]], names: Sequence[str], result: Assignment
) -> None:
    left: list[Place] = []
    scoped: dict[tuple[str, ...], list[Place]] = {}
    for place in places:
        own = [n for n in names if n in wanted[place]]
        named = [n for n in own if is_same_name(place.name, n)] if len(place.value.uses()) == 1 else []
        if len(own) == 1 or len(named) == 1:
            name = named[0] if named else own[0]
            same = is_same_name(place.name, name)
            result.chosen[place] = name, "name" if same else "value"
            continue
        told = by_scope(place, own)
        if len({module_of(n) for n in told}) == 1:
            scoped.setdefault(tuple(told), []).append(place)
        else:
            left.append(place)
    for module, sharing in scoped.items():
        _within_module(module, sharing, result)
    if left:
        taken = {name for name, _ in result.chosen.values()}
        free = [n for n in names if n not in taken]
        _in_order(left, wanted, free or list(names), result)


def _within_module(names: Sequence[str], places: Sequence[Place], result: Assignment) -> None:
    """Equal arrays of one module: a batch norm's by their roles, others in the order of the inputs."""
    by_node: dict[ir.Node, list[Place]] = {}
    for place in places:
        by_node.setdefault(place.node, []).append(place)
    roles = {role_of(name) or "": name for name in names}
    is_told = len(roles) == len(names)
    for node, sharing in by_node.items():
        ordered = sorted(sharing, key=lambda p: p.index)
        if node.op_type == "BatchNormalization" and all(_role(p) in roles for p in ordered):
            result.chosen.update({p: (roles[_role(p)], "value") for p in ordered})
            continue
        is_told = False
        for i, place in enumerate(ordered):
            result.chosen[place] = names[min(i, len(names) - 1)], "value"
    if len(names) > 1 and not is_told:
        result.doubtful.append(tuple(names))


def _role(place: Place) -> str:
    return INPUTS.get(place.index, "none")


def _in_order(
    places: Sequence[Place], wanted: Mapping[Place, Sequence[str]], free: Sequence[str], result: Assignment
) -> None:
    remaining = list(free)
    for place in places:
        fitting = [n for n in remaining if n in wanted[place]] or [n for n in free if n in wanted[place]]
        if fitting:
            result.chosen[place] = fitting[0], "order"
            if fitting[0] in remaining:
                remaining.remove(fitting[0])
    result.doubtful.append(
        tuple(dict.fromkeys((*free, *(result.chosen[p][0] for p in places if p in result.chosen))))
    )
