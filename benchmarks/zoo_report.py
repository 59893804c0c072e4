"""The zoo's table and summary, from its rows."""

from __future__ import annotations

from statistics import median
from typing import Any

Row = dict[str, Any]
TOLERATED = 1e-3  # of the output scale
SLACK = 0.005  # operators that the cost model does not count, but zoo_check does
VACUOUS = 1e-6
RAN = ("ok", "original does not run")


def wrong(cut: Row) -> str:
    """Why a written file is not right; empty if it is."""
    bad = [f"{size}: {text}" for size, text in cut["runs"].items() if text not in RAN]
    error = cut["masked_error"]
    if error is not None and not error < TOLERATED:
        bad.append(f"masked error {error:.1e}")
    if cut["error"].startswith("CHECK"):
        bad.append(cut["error"])
    return "; ".join(bad)


def all_cuts(row: Row) -> list[Row]:
    return [*row["cuts"], *([row["exact"]] if row["exact"] else [])]


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def cell(cut: Row) -> str:
    """Reached fraction of macs, or what went wrong."""
    if cut["claimed"] is None:
        return cut["error"].split(":")[0] or "-"
    counted = cut["counted"]
    text = percent(counted if counted is not None else cut["claimed"])
    return text + ("" if cut["floor"] == 0.1 else " *") + (" WRONG" if wrong(cut) else "")


def exponent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0e}"


def reached(cut: Row) -> bool:
    """Is the target met by the count made outside graphprune, and the oracle passed?"""
    return cut["counted"] is not None and cut["counted"] <= cut["target"] + SLACK and not wrong(cut)


def reach(rows: list[Row], index: int) -> tuple[int, list[Row]]:
    """How many files reach a target, and the others."""
    short = [row for row in rows if len(row["cuts"]) <= index or not reached(row["cuts"][index])]
    return len(rows) - len(short), short


def table(rows: list[Row], targets: list[float]) -> list[str]:
    heads = ["model", "nodes", "params", "load s", "analyse s", "prunable", "inside"]
    for target in targets:
        heads += [f"to {target:.0%}", "oracle", "masked"]
    heads += ["exact: masked", "blocked by"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for row in sorted(rows, key=lambda row: row["model"]):
        if row["analyze_s"] is None:
            lines.append(f"| {row['model']} | {row['nodes']} | {row['error'].splitlines()[0][:150]} |")
            continue
        line = [
            row["model"],
            str(row["nodes"]),
            f"{row['params'] / 1e6:.1f}M",
            f"{row['load_s']:.2f}",
            f"{row['analyze_s']:.2f}",
            percent(row["prunable"]),
            percent(row["prunable_inside"]),
        ]
        for cut in row["cuts"]:
            line += [cell(cut), exponent(cut["oracle_error"]), exponent(cut["masked_error"])]
        line += ["-"] * (7 + 3 * len(targets) - len(line))
        line.append(exponent(row["exact"]["masked_error"]) if row["exact"] else "-")
        line.append("; ".join(f"{text} ({percent(share)})" for text, share in row["reasons"][:2]))
        lines.append("| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in line) + " |")
    return lines


def report(rows: list[Row]) -> tuple[str, bool]:
    """The table with its summary, and whether nothing is wrong."""
    targets = next(([cut["target"] for cut in row["cuts"]] for row in rows if row["cuts"]), [])
    lines = [*table(rows, targets), "", "`*`: with a floor of 2 %, since one of 10 % does not reach it.", ""]
    names = {row["model"].split(".")[0] for row in rows}
    lines.append(f"{len(rows)} files of {len(names)} architectures.")
    bad = [(row, text) for row in rows for cut in all_cuts(row) if (text := wrong(cut))]
    lines.append(f"Wrong files: {len(bad)}.")
    lines += [f"* {row['model']}: {text}" for row, text in bad]
    crashed = [row for row in rows if row["error"] or any("CRASH" in c["error"] for c in all_cuts(row))]
    lines.append(f"Crashes, and models that can't be analysed: {len(crashed)}.")
    lines += [f"* {row['model']}: {first_error(row)}" for row in crashed]
    refused = [(row, c) for row in rows for c in all_cuts(row) if c["error"].startswith("ValidationError")]
    lines.append(f"Cuts that the oracle refused (nothing was written): {len(refused)}.")
    lines += [f"* {row['model']} to {c['target']:.0%}: {one_line(c['error'])}" for row, c in refused]
    checked = [c for row in rows for c in all_cuts(row) if c["masked_error"] is not None]
    vacuous = [c for c in checked if c["masking_moved"] is not None and c["masking_moved"] < VACUOUS]
    lines.append(
        f"Cuts compared with a masked original outside graphprune: {len(checked)}, "
        f"of which {len(vacuous)} did not move the output and prove nothing."
    )
    done = [row for row in rows if row["prunable_inside"] is not None]
    if done:
        middle = percent(median(row["prunable_inside"] for row in done))
        lines.append(f"Median prunable fraction (embedding and classifier aside): {middle}.")
    for index, target in enumerate(targets):
        reached, short = reach(rows, index)
        lines.append(f"Reach macs={target:.0%}: {reached} of {len(rows)} ({reached / len(rows):.1%}). Short:")
        lines += [f"* {row['model']}: {first_error(row, index)}" for row in short]
    return "\n".join(lines), not bad and not crashed and not refused


def one_line(text: str) -> str:
    return " / ".join(part.strip() for part in text.splitlines() if part.strip())


def first_error(row: Row, index: int | None = None) -> str:
    """The error of one cut, or the first of a row."""
    if row["error"]:
        return one_line(row["error"])[:300]
    cuts = all_cuts(row) if index is None else row["cuts"][index : index + 1]
    texts = [cut["error"] for cut in cuts if cut["error"]]
    missed = [f"counts {percent(cut['counted'])}, claims {percent(cut['claimed'])}" for cut in cuts]
    return one_line((texts or missed or [""])[0])[:600]
