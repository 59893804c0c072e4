"""Device profiles: measured, kept, found again, and what plans take from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from latency_networks import attention, convolutions
from pretended_device import PretendedDevice

import graphprune as gp
from graphprune.device import profiles
from graphprune.device.align import group_steps
from graphprune.device.curves import KINDS
from graphprune.device.options import Tuning
from graphprune.device.profiles import Profile, find_profile, keep_profile, measure_profile
from graphprune.errors import ModelError, UsageError
from graphprune.graph import analyze
from graphprune.model import load
from graphprune.progress import silent

MULTIPLES = {"conv": 16, "depthwise": 4, "matmul": 32, "attention": 8}


def measured(block: int = 16, name: str = "pretended") -> Profile:
    return measure_profile(PretendedDevice(block=block, name=name), quick=True, progress=silent)


def test_a_profile_finds_the_block_of_its_machine() -> None:
    found = measured(16).multiples()
    assert (found["conv"], found["matmul"]) == (16, 16)
    assert measured(32).multiples()["conv"] == 32


def test_quick_is_less() -> None:
    full = measure_profile(PretendedDevice(), progress=silent)
    assert [curve.kind for curve in full.curves] == list(KINDS)
    assert 0 < len(measured().curves) < len(KINDS)
    assert not full.is_quick


def test_a_profile_survives_its_file(tmp_path: Path) -> None:
    profile = measured()
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile.to_json()), encoding="utf-8")
    again = Profile.load(path)
    assert again.identity == profile.identity
    assert again.multiples() == profile.multiples()
    assert again.to_json() == profile.to_json()
    assert again.to_json()["schema_version"] == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 1}', '{"schema_version": 99}'])
def test_what_is_no_profile_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ModelError):
        Profile.load(path)


def test_the_users_own_profile_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    device = PretendedDevice(block=16)
    keep_profile(measured(16))
    monkeypatch.setattr(profiles, "shipped_profiles", lambda: [measured(32)])
    device.asked.clear()
    assert find_profile(device, silent).multiples()["conv"] == 16
    assert not device.asked


def test_then_a_shipped_one_of_the_same_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "shipped_profiles", lambda: [measured(8, "another"), measured(32)])
    device = PretendedDevice(block=16)
    assert find_profile(device, silent).multiples()["conv"] == 32
    assert not device.asked


def test_else_it_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "shipped_profiles", list)
    device = PretendedDevice(block=16)
    found = find_profile(device, silent)
    assert found.is_quick
    assert "quick" in found.origin
    device.asked.clear()
    again = find_profile(device, silent)
    assert again.multiples() == found.multiples()
    assert again.origin == found.origin  # stands in the plan, whose hash stands in the file
    assert not device.asked


def test_shipped_profiles_can_be_read() -> None:
    for profile in profiles.shipped_profiles():
        assert profile.curves
        assert profile.date
        assert "shipped" in profile.origin


def test_steps_of_groups() -> None:
    graph = analyze(load(convolutions()))
    steps = {group_id.split(":")[0]: step for group_id, step in group_steps(graph, MULTIPLES).items()}
    # The first width is read by a depthwise and a plain convolution, the second by the classifier as well.
    assert steps == {"c1.w": 16, "c2.w": 32}
    assert set(group_steps(graph, {}).values()) == {1}


def test_heads_are_counted_and_their_dims_aligned() -> None:
    graph = analyze(load(attention()))
    steps = group_steps(graph, MULTIPLES)
    by_kind = {
        g.kind: {steps.get(h.id) for h in graph.groups if h.kind == g.kind and h.prunable}
        for g in graph.groups
    }
    assert by_kind["heads"] == {None}
    assert by_kind["head_dim"] == {8}
    assert 32 in by_kind["channels"]


@pytest.mark.parametrize("make", [convolutions, attention])
def test_plans_keep_the_multiples(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    device = PretendedDevice()
    monkeypatch.setattr(Tuning, "device", lambda self: device)
    keep_profile(measured(16))
    plan = gp.plan(make(), target={"macs": 0.6}, criterion="l2", align="auto")
    widths = [g for g in plan.groups if g.kind == "channels"]
    assert widths
    assert all(len(g.keep) % 16 == 0 or len(g.keep) == g.size for g in widths)
    assert plan.options["align"]["auto"]["conv"] == 16
    assert plan.options["align"]["profile"].startswith("measured ")


def test_alignment_is_a_number_or_auto() -> None:
    for wrong in ("much", "0", "-1", 0):
        with pytest.raises(UsageError, match="cannot align"):
            gp.plan(convolutions(), target={"macs": 0.5}, align=wrong)
    plan = gp.plan(convolutions(), target={"macs": 0.5}, criterion="l2", align="8")
    assert plan.options["align"] == 8
    assert gp.plan(convolutions(), target={"macs": 0.5}, criterion="l2").options["align"] == 1


def test_curves_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (the extra `plot`)")
    from graphprune.device.plot import draw

    path, again = tmp_path / "curves.svg", tmp_path / "again.svg"
    profile = measured()
    draw(profile, path)
    draw(profile, again)
    text = path.read_text(encoding="utf-8")
    assert text == again.read_text(encoding="utf-8")
    assert len(text) < 300_000
    for curve in profile.curves:
        assert curve.what in text
    with pytest.raises(UsageError, match="cannot draw"):
        draw(profile, tmp_path / "curves.nonsense")


def test_multiples_are_the_largest_of_an_operator() -> None:
    profile = measured(16)
    wanted = {
        curve.op: max(c.steps.multiple for c in profile.curves if c.op == curve.op)
        for curve in profile.curves
    }
    assert profile.multiples() == wanted
    assert profile.multiples("float16") == {}
    assert np.all([curve.milliseconds for curve in profile.curves])
