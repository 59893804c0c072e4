"""An ONNX graph as a torch module: differentiable, its parameters named by initializer.

::

    from graphprune.converters import to_torch

    module = to_torch("pruned.onnx")                  # a path, a ModelProto or a Model
    outputs = module({"image": images})               # or module(image=images): tensors or arrays
    outputs["logits"].sum().backward()
    module({"image": images}, fetch=["/layer1/Relu_output_0"])     # any tensor of the graph, by its name

    module.initializers                               # {initializer name: nn.Parameter}
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    trained = module.write_back(model)                # a Model with these numbers; nothing is exported again

The graph is interpreted node by node, each operator by one small function (``operators/``), and values are
freed after their last use. ``.double()``, ``.half()`` and ``.to(device)`` work as on every module: what the
graph casts to a floating type follows.

Weights, biases and scales of norms are parameters. What is no weight stays as it is: integers, shapes,
numbers such as an epsilon or ``sqrt(d)``, masks, running statistics, tables that only sines and cosines read.
A fixed table that is added or looked up like a learned one is taken for learned: freeze it by its name.
Equal-valued vectors that an exporter merged are parameters of their own, one per use, named
``NAME@OUTPUT:INPUT_INDEX``; a matrix that is used twice is one parameter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.converters.source import missing

from graphprune.model import Source

if TYPE_CHECKING:
    from graphprune.converters.torch_graph.module import GraphModule

__all__ = ["to_torch"]


def to_torch(source: Source) -> GraphModule:
    """The graph of ``source`` as a differentiable module.

    Args:
        source: a path, a `ModelProto`, a `Model`, or whatever else `graphprune.load` takes.

    Raises:
        ModelError: the source is not valid, holds an operator that has no function here, or torch is
            not installed.
    """
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        name = "torch"
        raise missing(name, name) from error
    from graphprune.converters.torch_graph.module import GraphModule

    return GraphModule(source)
