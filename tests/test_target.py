"""Reading targets."""

from __future__ import annotations

import pytest

from graphprune.cost import Cost
from graphprune.errors import UsageError
from graphprune.target import fractions, parse_bytes, parse_target

DENSE = Cost(macs=4_000_000, params=10_000, bytes=40_000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("macs=50%", ("macs", 0.5)),
        (" MACS = 33.5 %", ("macs", 0.335)),
        ("params=2M", ("params", "2M")),
        ("bytes=20MB", ("bytes", "20MB")),
    ],
)
def test_parse_target(text: str, expected: tuple[str, float | str]) -> None:
    metric, amount = parse_target(text)
    assert metric == expected[0]
    assert amount == (pytest.approx(expected[1]) if isinstance(expected[1], float) else expected[1])


@pytest.mark.parametrize("text", ["macs", "50%", "macs=x%", "macs=%"])
def test_parse_target_refuses(text: str) -> None:
    with pytest.raises(UsageError, match="cannot read the target"):
        parse_target(text)


@pytest.mark.parametrize(
    ("metric", "amount", "fraction"),
    [
        ("macs", 0.25, 0.25),
        ("macs", "25%", 0.25),
        ("macs", "0.25", 0.25),
        ("macs", "1M", 0.25),
        ("macs", "1e6", 0.25),
        ("macs", "1000k", 0.25),
        ("macs", ".001G", 0.25),
        ("params", "5000", 0.5),
        ("params", "5k", 0.5),
        ("bytes", "20kB", 0.5),
        ("bytes", "20KB", 0.5),
        ("bytes", "20 kb", 0.5),
        ("bytes", "10Ki", 0.256),
        ("bytes", "10KiB", 0.256),
        ("bytes", "20000B", 0.5),
    ],
)
def test_fractions(metric: str, amount: float | str, fraction: float) -> None:
    assert fractions({metric: amount}, DENSE) == {metric: pytest.approx(fraction)}


@pytest.mark.parametrize(
    "amount",
    [0, 0.0, 1.0, 1, 1.4, -0.5, float("nan"), "0%", "100%", "140%", "-5%", "nan%"],
)
def test_out_of_range_is_refused(amount: float | str) -> None:
    with pytest.raises(UsageError, match="out of range") as caught:
        fractions({"macs": amount}, DENSE)
    assert "more than 0 %, less than 100 %" in (caught.value.because or "")


@pytest.mark.parametrize(
    ("metric", "amount", "whole"),
    [
        ("macs", "8M", 4_000_000),
        ("macs", "4M", 4_000_000),  # exactly what it has
        ("macs", "1e99", 4_000_000),
        ("macs", "1", 4_000_000),
        ("params", "10001", 10_000),
        ("bytes", "20MB", 40_000),
    ],
)
def test_amount_that_the_model_has_already_is_refused(metric: str, amount: str, whole: int) -> None:
    with pytest.raises(UsageError, match=f"the target {metric}={amount} is no cut") as caught:
        fractions({metric: amount}, DENSE)
    assert caught.value.because == f"the model has {whole} already"
    assert caught.value.hint == f"{metric}=50%"


@pytest.mark.parametrize(
    ("metric", "amount", "whole"),
    [("macs", "50", 4_000_000), ("params", "9", 10_000), ("bytes", "30", 40_000)],
)
def test_forgotten_percent_sign_is_pointed_out(metric: str, amount: str, whole: int) -> None:
    with pytest.raises(UsageError, match=f"the target {metric}={amount} keeps {amount} of {whole}") as caught:
        fractions({metric: amount}, DENSE)
    assert caught.value.hint == f"{metric}={amount}%, if a percentage was meant"


def test_small_targets_that_say_what_they_are_stay_allowed() -> None:
    assert fractions({"macs": "0.05%"}, DENSE) == {"macs": pytest.approx(0.0005)}
    assert fractions({"macs": 0.0005}, DENSE) == {"macs": pytest.approx(0.0005)}
    assert fractions({"macs": "2k"}, DENSE) == {"macs": pytest.approx(0.0005)}
    assert fractions({"params": "10"}, DENSE) == {"params": pytest.approx(0.001)}


@pytest.mark.parametrize("amount", ["", "x", "1.2.3", "..", "5X", "5 MM", "-5", "1e", "0x10", "½"])
def test_unreadable_amounts_are_refused(amount: str) -> None:
    with pytest.raises(UsageError, match="cannot read the amount"):
        fractions({"macs": amount}, DENSE)


def test_unknown_and_missing_targets_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown target 'energy'"):
        fractions({"energy": 0.5}, DENSE)
    with pytest.raises(UsageError, match="no target given"):
        fractions({}, DENSE)


@pytest.mark.parametrize("text", ["0", "0MB", "much"])
def test_no_bytes_are_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="is no size"):
        parse_bytes(text)
