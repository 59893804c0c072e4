"""The documents that scripts read, field by field against the interface page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import NETWORKS, initializer, replace

Save = Callable[[str], Path]

NUMBER = (int, float)


def typed(document: Any, shape: Any, where: str = "") -> None:
    """Does a document have exactly these fields, of these types?  A one-element list is repeated."""
    if isinstance(shape, dict):
        assert isinstance(document, dict), where
        assert set(document) == set(shape), (where, set(document) ^ set(shape))
        for key, inner in shape.items():
            typed(document[key], inner, f"{where}.{key}")
    elif isinstance(shape, list):
        assert isinstance(document, list), where
        for number, item in enumerate(document):
            typed(item, shape[0], f"{where}[{number}]")
    else:
        assert isinstance(document, shape), (where, document)
        assert shape is bool or bool in np.atleast_1d(shape) or not isinstance(document, bool), where


COST = {"macs": int, "params": int, "bytes": int}
RATIOS = {"macs": float, "params": float, "bytes": float}
GROUP = {
    "id": str, "kind": str, "size": int, "prunable": bool, "exact": bool, "reason": (str, type(None)),
    "changes": [str], "members": [{"name": str, "axis": int}], "macs": int, "params": int,
}  # fmt: skip
PRUNED = {
    "schema_version": int, "output": str, "before": COST, "after": COST, "kept": RATIOS, "target": dict,
    "groups": [{"id": str, "kind": str, "exact": bool, "size": int, "keep": [int]}],
    "verify": {"max_error": float, "scale": float, "runs": list, "exact": bool, "statistics": [str],
               "not_run": [str], "parts": (list, type(None))},
    "seconds": dict, "model_sha256": str,
}  # fmt: skip


def without_more(document: dict[str, Any], shape: dict[str, Any]) -> dict[str, Any]:
    """The fields of the contract; more may be added freely."""
    return {key: document[key] for key in shape}


def test_inspect(cli, save: Save) -> None:  # type: ignore[no-untyped-def]
    path = save("tied_embedding")
    found = cli("inspect", path, "--json").json()
    assert found["schema_version"] == 1
    model = found["model"]
    typed(without_more(model, {"nodes": 0, **COST, "opset": 0}), {"nodes": int, **COST, "opset": int})
    assert (model["nodes"], model["opset"], model["bytes"]) == (8, 17, path.stat().st_size)
    assert model["macs"] == 128 * (8 * 10 + 10 * 8 + 8 * 7)
    assert model["params"] == 7 * 8 + 8 * 10 + 10 * 8 + 8 + 8
    for group in found["groups"]:
        typed(without_more(group, GROUP), GROUP)
        assert (group["reason"] is None) == group["prunable"]
        assert group["exact"] == (not group["changes"])
    typed(found["ops"], [{"domain": str, "op_type": str, "count": int, "rule": bool}])
    typed(found["prunable_params_fraction"], float)
    by_id = {g["id"]: g for g in found["groups"]}
    wide = by_id["table:1"]
    assert (wide["size"], wide["exact"], wide["prunable"]) == (8, False, True)
    assert {"name": "table", "axis": 1} in wide["members"]
    # Every MatMul and the Gemm shrink with the width.
    assert wide["macs"] == model["macs"]
    assert wide["params"] == model["params"]
    assert by_id["up.w:1"]["macs"] == 2 * 128 * 80
    assert by_id["up.w:1"]["params"] == 160


def test_inspect_ops(cli, save: Save) -> None:  # type: ignore[no-untyped-def]
    ops = cli("inspect", save("other_domain"), "--json").json()["ops"]
    assert {"domain": "ai.onnx", "op_type": "MatMul", "count": 4, "rule": True} in ops
    assert {"domain": "com.microsoft", "op_type": "Trilu", "count": 1, "rule": False} in ops
    assert sum(op["count"] for op in ops) == 8


def test_explain(cli, save: Save) -> None:  # type: ignore[no-untyped-def]
    found = cli("explain", save("cnn"), "fc.w:0", "--json").json()
    assert found["schema_version"] == 1
    assert (found["value"], found["axis"], found["size"]) == ("fc.w", 0, 5)
    assert found["reasons"] == ["model output 'y'"]
    assert (found["groups"], found["blocked"]) == ([], {"fc.w:0": "model output 'y'"})
    assert found["members"] == [["fc.b", 0], ["fc.w", 0]]
    assert {"node", "op_type", "source", "target"} <= set(found["chain"][0])


def test_prune(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "o.onnx"
    done = cli("prune", save("cnn"), out, "--target", "macs=50%", "--criterion", "l2", "--json")
    found = done.json()
    typed(without_more(found, PRUNED), PRUNED)
    assert done.err == ""
    assert found["schema_version"] == 1
    assert found["output"] == str(out)
    assert found["target"] == {"macs": 0.5}
    assert found["kept"]["macs"] == found["after"]["macs"] / found["before"]["macs"] <= 0.5
    assert found["after"]["bytes"] == pytest.approx(out.stat().st_size, rel=0.01)
    assert found["verify"]["max_error"] <= 1e-4 * found["verify"]["scale"]


def test_prune_without_verification(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    found = cli(
        "prune",
        save("cnn"),
        tmp_path / "o",
        "--target",
        "macs=50%",
        "--criterion",
        "l2",
        "--no-verify",
        "--json",
    ).json()
    assert found["verify"] is None


def test_apply(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model, plan = save("cnn"), tmp_path / "p.json"
    first = cli(
        "prune",
        model,
        tmp_path / "a",
        "--target",
        "macs=50%",
        "--criterion",
        "l2",
        "--plan-out",
        plan,
        "--json",
    ).json()
    second = cli("apply", plan, model, tmp_path / "b", "--json").json()
    typed(without_more(second, PRUNED), PRUNED)
    same = ("before", "after", "kept", "groups", "target", "model_sha256")
    assert {k: first[k] for k in same} == {k: second[k] for k in same}


def test_plan_file(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Enough for somebody who does not trust us: the cut is repeated here with numpy alone."""
    model, plan = save("cnn"), tmp_path / "p.json"
    cli("prune", model, tmp_path / "o.onnx", "--target", "macs=50%", "--criterion", "l2", "--plan-out", plan)
    found = json.loads(plan.read_text())
    typed(
        {k: v for k, v in found.items() if k != "options"},
        {
            "schema_version": int, "model_sha256": str, "target": {"macs": float}, "reached": RATIOS,
            "groups": PRUNED["groups"],
            "parameters": [{"name": str, "axis": int, "size": int, "keep": [int],
                            "uses": (list, type(None)), "groups": [str]}],
            "interface": [{"name": str, "kind": str, "axis": int, "size": int, "keep": [int]}],
            "model_file": str,
        },
    )  # fmt: skip
    before, after = onnx.load(model), onnx.load(tmp_path / "o.onnx")
    arrays = {t.name: initializer(before, t.name) for t in before.graph.initializer}
    for entry in found["parameters"]:
        assert arrays[entry["name"]].shape[entry["axis"]] == entry["size"]
        arrays[entry["name"]] = np.take(arrays[entry["name"]], entry["keep"], axis=entry["axis"])
    assert {t.name for t in after.graph.initializer} == set(arrays)
    assert all(np.array_equal(initializer(after, name), array) for name, array in arrays.items())


def test_check(cli, save: Save) -> None:  # type: ignore[no-untyped-def]
    found = cli("check", save("mlp"), save("mlp"), "--json").json()
    assert (found["schema_version"], found["same"], found["tolerance"]) == (1, True, 1e-4)
    typed(
        found["outputs"],
        [
            {
                "output": str, "max_error": NUMBER, "mean_error": NUMBER, "scale": NUMBER, "cosine": NUMBER,
                "compared": int, "passing_tolerance": NUMBER,
            }
        ],
    )  # fmt: skip


def test_check_of_what_is_not_finite_is_still_json(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model = NETWORKS["mlp"]()
    replace(model, "c.b", np.full(3, np.nan, np.float32))
    onnx.save(model, tmp_path / "nan.onnx")
    done = cli("check", save("mlp"), tmp_path / "nan.onnx", "--json")
    assert done.code == 3
    assert done.json()["same"] is False
    assert done.json()["outputs"][0]["max_error"] is None


def test_profile(cli, save: Save) -> None:  # type: ignore[no-untyped-def]
    done = cli("profile", save("mlp"), "--repeat", 3, "--warmup", 1, "--json")
    found = done.json()
    assert found["schema_version"] == 1
    shape = {
        "model": str, "provider": str, "device": str, "threads": (int, type(None)), "batch": int,
        "repeat": int,
        "latency_ms": {"p50": float, "p90": float, "p95": float, "p99": float, "mean": float, "least": float,
                       "most": float}, "throughput_per_s": float, "load_ms": float, "energy_j": dict,
        "peak_rss_bytes": (int, type(None)), "ops": [{"op_type": str, "ms": float, "share": float}],
        "layers": [{"name": str, "op_type": str, "provider": str, "ms": float, "share": float,
                    "origins": [str]}],
    }  # fmt: skip
    (run,) = found["runs"]
    typed(without_more(run, shape), shape)
    assert run["repeat"] == 3
    assert sum(op["share"] for op in run["ops"]) == pytest.approx(1.0)


def test_convert(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    found = cli("convert", save("mlp"), tmp_path / "o.onnx", "--json").json()
    assert found["schema_version"] == 1
    assert found["max_abs_diff"] == 0
    assert Path(found["out"]).is_file()
