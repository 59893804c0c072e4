"""Products of matrices."""

from __future__ import annotations

import torch
from graphprune.converters.torch_graph.call import Call, on_one_device
from graphprune.converters.torch_graph.registry import op
from torch import Tensor


@op("MatMul")
def matmul(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """As numpy's matmul."""
    if not a.is_floating_point():
        return torch.matmul(a.to("cpu"), b.to("cpu"))  # of integers, and only there
    return torch.matmul(*on_one_device((a, b)))


@op("Gemm", since=7)
def gemm(call: Call, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """``alpha A B + beta C``."""
    a = a.T if call.get("transA", 0) else a
    b = b.T if call.get("transB", 0) else b
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    if c is None:
        return torch.mm(a, b) if alpha == 1.0 else alpha * torch.mm(a, b)
    return torch.addmm(c, a, b, beta=beta, alpha=alpha)


@op("Einsum", since=12)
def einsum(call: Call, *inputs: Tensor) -> Tensor:
    """Sum of products, as numpy's einsum."""
    return torch.einsum(call.get("equation").replace(" ", ""), *on_one_device(inputs))
