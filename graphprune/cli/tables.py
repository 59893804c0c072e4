"""Tables for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from rich.table import Table

from graphprune.amounts import count, size
from graphprune.check import Difference
from graphprune.cost import Cost
from graphprune.report import GroupSummary, InspectReport

_SHOWN = 20


def summary(report: InspectReport) -> Table:
    """The model in one row."""
    table = Table(title="model")
    for name in ("nodes", "MACs", "parameters", "file", "opset", "prunable parameters"):
        table.add_column(name, justify="right")
    m = report.model
    table.add_row(
        str(m.nodes), count(m.macs), count(m.params), size(m.bytes), str(m.opset),
        f"{report.prunable_params_fraction:.1%}",
    )  # fmt: skip
    if m.dims:
        sizes = ", ".join(f"{k}={v}" for k, v in m.dims.items())
        table.caption = f"counted at {sizes} (--dim changes it)"
    return table


def groups(report: InspectReport, *, every: bool) -> Table:
    """Prunable groups, the costliest first."""
    prunable = sorted((g for g in report.groups if g.prunable), key=lambda g: -g.macs)
    shown = prunable if every else prunable[:_SHOWN]
    title = f"groups: {len(prunable)} can shrink"
    if len(shown) < len(prunable):
        title += f", the {len(shown)} with most MACs (--all for the rest)"
    table = Table(title=title)
    table.add_column("group", overflow="fold")
    table.add_column("layer", overflow="fold")
    table.add_column("kind")
    for name in ("units", "tensors", "MACs", "parameters"):
        table.add_column(name, justify="right")
    table.add_column("removal")
    for g in shown:
        table.add_row(
            g.id, g.layer, g.kind, str(g.size), str(len(g.members)), count(g.macs), count(g.params),
            "exact" if g.exact else f"changes {len(g.changes)} statistics",
        )  # fmt: skip
    return table


def blocked(report: InspectReport) -> Table:
    """What can't shrink, by reason."""
    by_reason: dict[str, list[GroupSummary]] = defaultdict(list)
    for group in report.groups:
        if not group.prunable:
            by_reason[(group.reason or "").split(" (")[0]].append(group)
    table = Table(title="blocked axes, by reason")
    table.add_column("reason", overflow="fold")
    table.add_column("groups", justify="right")
    table.add_column("for example", overflow="fold")
    for reason, found in sorted(by_reason.items(), key=lambda item: -len(item[1])):
        table.add_row(reason, str(len(found)), found[0].id)
    return table


def interface(report: InspectReport, *, every: bool) -> Table:
    """Inputs and outputs of the model, and which of their axes may shrink."""
    shown = report.interface if every else report.interface[:_SHOWN]
    title = "inputs and outputs"
    if len(shown) < len(report.interface):
        title += f", the first {len(shown)} of {len(report.interface)} (--all for the rest)"
    table = Table(title=title)
    table.add_column("name", overflow="fold")
    for name in ("kind", "shape", "may shrink"):
        table.add_column(name)
    for end in shown:
        axes = ", ".join(map(str, end.open_axes))
        table.add_row(
            end.name, end.kind, shape(end.shape), f"axes {axes}" if axes else "no, protected (--allow-io)"
        )
    return table


def shape(sizes: Sequence[int | str | None]) -> str:
    """``[batch, 3, 224, 224]``."""
    return f"[{', '.join('?' if size is None else str(size) for size in sizes)}]"


def missing_rules(report: InspectReport) -> Table | None:
    """Operators without a rule."""
    missing = [op for op in report.ops if not op.rule]
    if not missing:
        return None
    table = Table(title="operators without a coupling rule (they block what touches them)")
    table.add_column("operator")
    table.add_column("nodes", justify="right")
    for op in missing:
        table.add_row(f"{op.domain}::{op.op_type}", str(op.count))
    return table


def before_after(before: Cost, after: Cost, extra: Sequence[tuple[str, str, str, str]] = ()) -> Table:
    """Cost of the original and of the pruned model."""
    table = Table(title="before and after")
    for name in ("", "before", "after", "kept"):
        table.add_column(name, justify="left" if not name else "right")
    ratio = after.ratio(before)
    table.add_row("MACs", count(before.macs), count(after.macs), f"{ratio['macs']:.1%}")
    table.add_row("parameters", count(before.params), count(after.params), f"{ratio['params']:.1%}")
    table.add_row("file", size(before.bytes), size(after.bytes), f"{ratio['bytes']:.1%}")
    for row in extra:
        table.add_row(*row)
    return table


def differences(found: Sequence[Difference]) -> Table:
    """How far outputs are apart."""
    table = Table(title="outputs")
    table.add_column("output", overflow="fold")
    for name in ("largest difference", "mean", "largest value", "cosine", "tolerance that passes"):
        table.add_column(name, justify="right")
    for d in found:
        table.add_row(
            d.output, f"{d.max_error:.3g}", f"{d.mean_error:.3g}", f"{d.scale:.3g}", f"{d.cosine:.6f}",
            d.round_tolerance,
        )  # fmt: skip
    return table
