"""Norms of a large weight, a few rows at a time, are those of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from graphprune.passes.criteria import members
from graphprune.passes.criteria.magnitude import Magnitude
from networks import NETWORKS

import graphprune as gp
from graphprune.calibration.evidence import Evidence
from graphprune.errors import ModelError
from graphprune.storage import slices


@pytest.mark.parametrize("name", ["attention", "cnn", "gated_mlp", "grouped"])
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("piece", [1, 700])
def test_pieces(monkeypatch: pytest.MonkeyPatch, name: str, p: int, piece: int) -> None:
    evidence = Evidence(gp.analyze(gp.load(NETWORKS[name]())))
    whole = Magnitude(p)(evidence)
    monkeypatch.setattr(members, "LARGE_BYTES", 16)
    monkeypatch.setattr(slices, "PIECE_BYTES", piece)
    np.testing.assert_allclose(Magnitude(p)(evidence), whole, rtol=1e-6)


def test_a_nan_is_found_in_any_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "LARGE_BYTES", 16)
    monkeypatch.setattr(slices, "PIECE_BYTES", 100)
    model = NETWORKS["mlp"]()
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    array = np.frombuffer(largest.raw_data, np.float32).copy()
    array[-1] = np.nan
    largest.raw_data = array.tobytes()
    with pytest.raises(ModelError, match="NaN"):
        Magnitude(2)(Evidence(gp.analyze(gp.load(model))))
