"""What a plan owes to a machine, in plain sentences."""

from __future__ import annotations

from graphprune.amounts import several
from graphprune.plan import Plan


def latency(plan: Plan) -> list[str]:
    """How fast the cut was measured to be, and how often it was looked for."""
    found = plan.options.get("latency")
    reached = plan.reached.get("latency")
    if not found or reached is None:
        return []
    who, original = found["identity"], found["original_ms"]
    threads = "" if who["threads"] is None else f", {several(who['threads'], 'thread')}"
    rounds = len(found["rounds"])
    return [
        f"latency: {reached:.1%} of the original's {original:.3g} ms ({1 / reached:.2f} times as fast), "
        f"measured in alternation on {who['device']}, {who['provider']}{threads}, batch {found['batch']}; "
        f"{several(rounds, 'cut')} measured"
    ]


def alignment(plan: Plan) -> list[str]:
    """Which multiples the widths have, where the machine was asked."""
    found = plan.options.get("align")
    if not isinstance(found, dict):
        return []
    said = ", ".join(f"{op} {multiple}" for op, multiple in found["auto"].items())
    return [f"widths are multiples of what the device likes ({said}); its profile: {found['profile']}"]
