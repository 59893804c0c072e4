"""A latency target is met by measurement, or refused with a reason."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import onnx
import pytest
from latency_networks import attention, convolutions
from networks import build
from pretended_device import PretendedDevice

import graphprune as gp
from graphprune.device import goal as goal_module
from graphprune.device.goal import TOLERANCE
from graphprune.device.local import LocalDevice
from graphprune.device.options import Tuning
from graphprune.device.profiles import keep_profile, measure_profile
from graphprune.errors import DeviceError, TargetError, UsageError
from graphprune.progress import silent


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> PretendedDevice:
    """Stands in for this machine; what it likes is known already."""
    found = PretendedDevice()
    monkeypatch.setattr(Tuning, "device", lambda self: found)
    keep_profile(measure_profile(found, quick=True, progress=silent))
    return found


def latency(model: Any, device: PretendedDevice) -> float:
    from graphprune.device.protocol import Job

    proto = model if isinstance(model, onnx.ModelProto) else model.to_proto()
    return device.measure([Job(proto.SerializeToString())])[0].milliseconds[0]


@pytest.mark.parametrize("wanted", [0.7, 0.5, 0.35])
def test_the_target_is_met(device: PretendedDevice, wanted: float) -> None:
    result = gp.prune(convolutions(), target={"latency": wanted}, criterion="l2", floor=0.0)
    ratio = latency(result.model, device) / latency(convolutions(), device)
    assert ratio <= wanted * (1 + TOLERANCE)
    assert ratio > wanted * 0.75  # widths are multiples of eight here: a few sizes in all
    assert result.plan.reached["latency"] == pytest.approx(ratio, rel=1e-3)
    for group in result.plan.groups:
        assert len(group.keep) % 8 == 0


@pytest.mark.parametrize("whole", [0.6, 1.8])
def test_a_wrong_table_is_corrected(device: PretendedDevice, whole: float) -> None:
    """In the whole model layers take another time than alone, and every run costs something."""
    device.whole, device.overhead = whole, 0.3
    result = gp.prune(convolutions(), target={"latency": 0.6}, criterion="l2", align=1)
    ratio = latency(result.model, device) / latency(convolutions(), device)
    assert 0.5 < ratio <= 0.6 * (1 + TOLERANCE)
    assert len(result.plan.options["latency"]["rounds"]) > 1


@pytest.mark.parametrize(("share", "wanted"), [(0.3, 0.254), (0.9, 0.579)])
def test_what_every_run_takes_is_told_apart(device: PretendedDevice, share: float, wanted: float) -> None:
    """No ratio of measurement and table says that a part of the time goes with no width."""
    device.overhead = share * latency(convolutions(), device)
    result = gp.prune(convolutions(), target={"latency": wanted}, criterion="l2", align=1)
    ratio = latency(result.model, device) / latency(convolutions(), device)
    assert wanted * 0.97 < ratio <= wanted * (1 + TOLERANCE)


def test_absolute_targets(device: PretendedDevice) -> None:
    before = latency(convolutions(), device)
    result = gp.prune(convolutions(), target={"latency": f"{before * 0.5:.6f}ms"}, criterion="l2")
    assert latency(result.model, device) <= before * 0.5 * (1 + TOLERANCE)


def test_other_targets_hold_as_well(device: PretendedDevice) -> None:
    result = gp.prune(convolutions(), target={"latency": 0.9, "params": 0.4}, criterion="l2")
    assert result.plan.reached["params"] <= 0.4
    assert result.plan.reached["latency"] <= 0.9 * (1 + TOLERANCE)


@pytest.mark.parametrize("allocator", ["global", "uniform", "rate-distortion", "knapsack"])
def test_any_allocator_meets_it(device: PretendedDevice, allocator: str) -> None:
    result = gp.prune(attention(), target={"latency": 0.6}, criterion="l2", allocator=allocator, align=4)
    assert latency(result.model, device) / latency(attention(), device) <= 0.6 * (1 + TOLERANCE)


def test_what_cannot_be_cut_is_named(device: PretendedDevice) -> None:
    device.overhead = 100 * latency(convolutions(), device)
    with pytest.raises(TargetError) as caught:
        gp.prune(convolutions(), target={"latency": 0.5}, criterion="l2")
    text = str(caught.value)
    assert caught.value.exit_code == 4
    assert "cannot reach latency=50.0%" in text
    assert "of the time stays" in text
    assert "all other nodes" in text


def test_a_refusal_says_what_was_measured(device: PretendedDevice) -> None:
    device.overhead = latency(convolutions(), device)
    with pytest.raises(TargetError) as caught:
        gp.prune(convolutions(), target={"latency": 0.45}, criterion="l2", align=1)
    fastest = re.search(r"takes ([\d.]+)% of the original's", str(caught.value))
    stays = re.search(r"because: (\d+)% of the time stays.*what no layer's table explains", str(caught.value))
    assert fastest is not None
    assert stays is not None
    assert 50 < float(fastest[1]) < 55
    assert float(stays[1]) == pytest.approx(float(fastest[1]), abs=0.5)


def test_layers_that_go_whole_beside_channels(device: PretendedDevice) -> None:
    """Both ends of a removed layer keep the same channels, which limits the largest cut."""
    body = """
        a0 = Conv<pads: ints = [1, 1, 1, 1]>(x, a.w) a = Relu(a0)
        b0 = Conv<pads: ints = [1, 1, 1, 1]>(a, b.w) b = Relu(b0) y = Conv(b, c.w)"""
    weights = {"a.w": (32, 8, 3, 3), "b.w": (32, 32, 3, 3), "c.w": (4, 32, 1, 1)}
    model = build("(float[n, 8, 16, 16] x) => (float[n, 4, 16, 16] y)", body, weights)
    with pytest.raises(TargetError, match=r"fastest cut that was measured(.|\n)*of the time stays"):
        gp.prune(model, target={"latency": 0.02}, criterion="l2", kinds=["blocks", "channels"], align=1)


def test_a_lost_device_is_no_reason_for_a_lesser_plan(
    device: PretendedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that can't be run is planned for by its weights; a link that broke says nothing about it."""
    measure, asked = device.measure, []

    def lost(jobs: Any, **options: Any) -> Any:
        asked.append(jobs)
        if len(asked) == 2:
            message = "the link was lost"
            raise DeviceError(message)
        return measure(jobs, **options)

    monkeypatch.setattr(device, "measure", lost)
    with pytest.raises(DeviceError, match="the link was lost"):
        gp.prune(convolutions(), target={"latency": 0.6})


def test_sizes_are_those_that_are_counted(device: PretendedDevice) -> None:
    """`--dim` says the batch as well."""
    many = gp.prune(convolutions(), target={"latency": 0.6}, criterion="l2", dims={"n": 8})
    noted = many.plan.options["latency"]
    assert (noted["batch"], noted["sizes"]) == (8, {"n": 8})
    assert noted["original_ms"] == pytest.approx(8 * latency(convolutions(), device), rel=1e-3)
    noted = gp.plan(convolutions(), target={"latency": 0.6}, criterion="l2", batch=4).options["latency"]
    assert (noted["batch"], noted["sizes"]) == (4, {"n": 4})


def test_no_lower_bound_on_times(device: PretendedDevice) -> None:
    """Bounds hold for sums of products of widths alone."""
    options = {"criterion": "l2", "allocator": "rate-distortion"}
    found = gp.plan(convolutions(), target={"macs": 0.6}, **options).options["allocation"]
    assert found["lower_bound"] is not None
    found = gp.plan(convolutions(), target={"latency": 0.6}, **options).options["allocation"]
    assert found["lower_bound"] is None


def test_another_file_has_no_latency_yet(device: PretendedDevice, tmp_path: Path) -> None:
    plan = gp.plan(convolutions(), target={"latency": 0.6}, criterion="l2")
    other = convolutions()
    other.producer_name = "another"
    assert "latency" in gp.prune(convolutions(), use_plan=plan).plan.reached
    assert "latency" not in gp.prune(other, use_plan=plan).plan.reached


def test_layers_that_are_left_out_are_named(device: PretendedDevice) -> None:
    with pytest.raises(TargetError, match="Conv_e0"):
        gp.prune(convolutions(), target={"latency": 0.3}, criterion="l2", include=["c1.w*"])


def test_a_target_that_is_no_cut(device: PretendedDevice) -> None:
    with pytest.raises(UsageError, match="is no cut"):
        gp.prune(convolutions(), target={"latency": "100s"}, criterion="l2")


def test_the_plan_says_where_it_was_measured(device: PretendedDevice, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    gp.prune(convolutions(), target={"latency": 0.6}, criterion="l2", plan_out=path)
    document = json.loads(path.read_text(encoding="utf-8"))
    found = document["options"]["latency"]
    assert found["identity"]["device"] == "pretended"
    assert found["original_ms"] > 0
    assert found["rounds"][-1]["measured"] == pytest.approx(document["reached"]["latency"], abs=1e-3)
    assert document["options"]["align"]["auto"]["conv"] == 8
    again = gp.apply(convolutions(), gp.Plan.load(path))
    assert latency(again, device) / latency(convolutions(), device) == pytest.approx(
        document["reached"]["latency"], rel=1e-3
    )


def test_this_machine_meets_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real thing, with little time: a convolution that takes nearly all of it."""
    monkeypatch.setattr(goal_module, "_SECONDS", 0.3)
    # What it likes is not the point here, and takes half a minute to find out.
    result = gp.prune(convolutions(), target={"latency": 0.8}, criterion="l2", align=8, threads=1, batch=4)
    assert result.plan.reached["latency"] <= 0.8 * (1 + TOLERANCE)
    assert result.plan.options["latency"]["identity"] == LocalDevice(threads=1).identity.to_json()
