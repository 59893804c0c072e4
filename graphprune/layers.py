"""What the people who made a network call the part that a node belongs to."""

from __future__ import annotations

import onnx_ir as ir

from graphprune.literals import literal

#: The dynamo exporter of torch writes the module path of each node here; weights often lose theirs.
_SCOPES = "pkg.torch.onnx.name_scopes"


def layer_of(node: ir.Node) -> str:
    """Module path of a node if the exporter noted one, else the node's name, else its first output."""
    scopes = literal(node.metadata_props.get(_SCOPES, "[]"))
    # The last entry is the operation itself, the one before it the module that calls it.
    modules = [s for s in scopes[:-1] if isinstance(s, str) and s] if isinstance(scopes, list) else []
    return modules[-1] if modules else node.name or node.outputs[0].name or ""
