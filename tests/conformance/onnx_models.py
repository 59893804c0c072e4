"""ONNX's own node test models, collected once."""

from __future__ import annotations

import warnings
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from onnx.backend.test.case.node import collect_testcases

    #: Test cases (``model``, ``data_sets``, ``name``) of one node; not those expanded into other operators.
    CASES: list[Any] = [
        c for c in collect_testcases(None) if len(c.model.graph.node) == 1 and "_expanded" not in c.name
    ]
