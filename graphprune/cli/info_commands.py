"""`info`."""

from __future__ import annotations

from rich.table import Table

from graphprune.amounts import count, size
from graphprune.cli import tables
from graphprune.cli.output import show, show_json
from graphprune.cli.parameters import Json, ModelPath
from graphprune.info import ModelInfo, Tensor
from graphprune.info import info as facts_of

_SHOWN = 12


def info(model: ModelPath, json: Json = False) -> None:
    """The basic facts of a file; of a pruned one also its plan and its original."""
    found = facts_of(model)
    if json:
        show_json(found.to_json())
        return
    show(_table(found))


def _table(found: ModelInfo) -> Table:
    table = Table(title=found.path, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    ops = list(found.ops.items())
    rest = len(ops) - _SHOWN
    rows = {
        "SHA-256": found.sha256,
        "file": size(found.bytes),
        "external data": ", ".join(found.data_files),
        "producer": found.producer,
        "opsets": ", ".join(f"{domain} {version}" for domain, version in found.opsets.items()),
        "IR version": str(found.ir_version),
        "parameters": count(found.params),
        "numbers by type": ", ".join(f"{name} {count(many)}" for name, many in found.dtypes.items()),
        "nodes": str(found.nodes),
        "operators": ", ".join(f"{name} {many}" for name, many in ops[:_SHOWN])
        + (f" and {rest} more types" if rest > 0 else ""),
        "inputs": _signature(found.inputs),
        "outputs": _signature(found.outputs),
        "metadata": "\n".join(f"{name} = {text}" for name, text in found.metadata.items()),
    }
    if found.pruned is None:
        rows["pruned"] = "not by graphprune, as far as the file says"
    else:
        origin = found.pruned
        reached = origin.reached or {}
        rows["pruned by"] = f"graphprune {origin.version}"
        rows["plan SHA-256"] = origin.plan_sha256
        rows["original SHA-256"] = origin.source_sha256
        rows["kept"] = ", ".join(f"{metric} {share:.1%}" for metric, share in reached.items())
    for name, text in rows.items():
        if text:
            table.add_row(name, text)
    return table


def _signature(values: list[Tensor]) -> str:
    return "\n".join(
        f"{v.name}: {v.dtype or 'unknown'}{tables.shape(v.shape) if v.shape is not None else ''}"
        for v in values
    )
