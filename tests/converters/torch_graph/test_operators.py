"""Values against onnxruntime and gradients against finite differences, for every operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from torch_op_cases import CASES, Case

pytestmark = pytest.mark.torch

#: Operators whose outputs have no gradient, and why.
NOT_DIFFERENTIABLE = {
    **dict.fromkeys(("Ceil", "Floor", "Round", "Sign"), "constant between jumps"),
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), "booleans"),
    **dict.fromkeys(("And", "Or", "Xor", "Not", "IsNaN", "IsInf"), "booleans"),
    **dict.fromkeys(("Shape", "Size", "EyeLike", "Range", "ConstantOfShape"), "made of sizes"),
    **dict.fromkeys(("ArgMax", "ArgMin", "NonZero"), "positions"),
}


def expected(case: Case) -> list[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(case.model.SerializeToString(), options)
    except (ort.capi.onnxruntime_pybind11_state.NotImplemented, ort.capi.onnxruntime_pybind11_state.Fail):
        from onnx.reference import ReferenceEvaluator

        return list(ReferenceEvaluator(case.model).run(None, case.feeds))
    return list(session.run(None, case.feeds))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_are_those_of_onnxruntime(case: Case) -> None:
    from graphprune.converters import to_torch

    wanted = expected(case)
    found = list(to_torch(case.model)(case.feeds).values())
    assert len(found) == len(wanted)
    for a, b in zip(wanted, (t.detach().numpy() for t in found), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(b, a, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("case", [c for c in CASES.values() if c.has_gradient], ids=lambda c: c.name)
def test_gradients_are_those_of_finite_differences(case: Case) -> None:
    import torch
    from graphprune.converters import to_torch

    module = to_torch(case.model).double()
    inputs = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in case.feeds.values()]

    def function(*given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        made = module(dict(zip(case.feeds, given, strict=True))).values()
        return tuple(t for t in made if t.is_floating_point() and t.requires_grad)

    assert function(*inputs)
    assert all(t.dtype == torch.float64 for t in function(*inputs))
    assert torch.autograd.gradcheck(function, inputs, eps=1e-6, atol=1e-6, rtol=1e-5)


def test_every_operator_has_a_case_with_a_gradient_or_a_reason() -> None:
    from graphprune.converters import to_torch
    from graphprune.converters.torch_graph.registry import TORCH_OPS

    smooth, run = set(), set()
    for case in CASES.values():
        for step in to_torch(case.model).steps():
            run.add((step.call.op_type, step.function))
            if case.has_gradient:
                smooth.add((step.call.op_type, step.function))
    for domain, op_type, since in TORCH_OPS.ops():
        entry = (op_type, TORCH_OPS.find(domain, op_type, since))
        assert entry in run, f"no case runs {op_type} since {since}"
        assert entry in smooth or op_type in NOT_DIFFERENTIABLE, f"no case of {op_type} has a gradient"
