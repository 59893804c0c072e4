"""What a pruning run did, in plain sentences: for the terminal and for the report."""

from __future__ import annotations

from collections import Counter

from graphprune.device.sentences import alignment, latency
from graphprune.oracle import Verdict
from graphprune.pruning import PruneResult


def sentences(result: PruneResult) -> list[str]:
    """One fact each: what went, what was verified, how far the outputs moved, what is worth knowing."""
    lines = _removed(result)
    verdict = result.verdict
    if verdict is not None:
        lines.append(_verified(verdict))
        if verdict.not_run:
            lines.append(f"not run, since onnxruntime does not know them: {', '.join(verdict.not_run)}")
        if verdict.statistics:
            shown = ", ".join(verdict.statistics[:3])
            more = f" and {len(verdict.statistics) - 3} more" if len(verdict.statistics) > 3 else ""
            lines.append(
                f"not the same as zeroing: these run over kept positions only, or not at all: {shown}{more}"
            )
    else:
        lines.append("not verified (--no-verify)")
    lines += _signature(result)
    lines += latency(result.plan)
    lines += _accuracy(result)
    widths = any(group.kind in ("channels", "head_dim") for group in result.plan.groups)
    if widths and result.plan.options.get("align") == 1:
        lines.append("widths that are no multiple of 8 can run slower than before: --align auto, and measure")
    lines += alignment(result.plan)
    if result.output is not None:
        lines.append(f"written: {result.output}")
    return lines


def _verified(verdict: Verdict) -> str:
    within = f"(within {verdict.max_error:.2g}, values up to {verdict.scale:.3g})"
    if verdict.parts is None:
        return (
            f"verified: the cut is right. On random inputs of {len(verdict.runs)} sizes the outputs equal "
            f"those of the original with the same slices masked {within}"
        )
    run, cut = verdict.parts
    return (
        f"verified in parts, since the model is large: {run} of the {cut} that are cut, some of every kind, "
        f"give on random numbers what the original gives with the same slices masked {within}"
    )


#: What is said about the samples, by option of the plan.
_NOTES = {
    "layers_with_few_rows": (
        "few samples: layers that saw fewer rows than they have inputs: {}; their correlations count for "
        "less, and more samples would help"
    ),
    "layers_too_large": "{} layers have too many inputs for second moments: their weights stay as they are",
    "large": (
        "weights only, since the model has {} of them: --criterion wanda or flap with --calibration "
        "stream samples through it (docs/big.md)"
    ),
    "samples_at_a_time": "samples ran one at a time: the model does not take more, whatever its inputs say",
}


def _accuracy(result: PruneResult) -> list[str]:
    """What is known of how well the pruned model does."""
    options, lines = result.plan.options, []
    if "fallback" in options:
        reason = options["fallback"].splitlines()[0]
        lines.append(f"weights only, since the model can't be run here: {reason}")
    lines += [text.format(options[name]) for name, text in _NOTES.items() if name in options]
    if "new_biases" in options.get("allocation", {}):
        lines.append("no layer got a new bias: the target leaves no room for it")
    if result.output_errors is not None:
        before, after = result.output_errors
        kind = "made-up" if result.is_synthetic else "calibration"
        kind = f"held-out {kind}" if result.is_held_out else kind
        said = f"outputs on {kind} samples: relative squared error {before:.3g} when cut, "
        how = options.get("compensator", "compensator")
        if "rejected" in options:
            lines.append(said + "and no less with weights re-solved, which are left as they were")
        elif how == "none":
            lines.append(said + "weights as they were")
        else:
            lines.append(said + f"{after:.3g} with the kept weights re-solved ({how})")
            if not result.is_held_out:
                lines.append("that flatters: these are the samples that weights were fitted to")
    if result.output_errors is None or result.is_synthetic:
        lines.append("this says nothing about accuracy: evaluate the pruned model on your data")
    return lines


def _removed(result: PruneResult) -> list[str]:
    """What went, kind by kind."""
    lines = []
    kinds = Counter(group.kind for group in result.plan.groups)
    for kind, count in kinds.most_common():
        groups = [group for group in result.plan.groups if group.kind == kind]
        if kind == "blocks":
            shown = ", ".join(group.id.removesuffix("/blocks") for group in groups[:6])
            more = ", …" if count > 6 else ""
            lines.append(f"removed: {count} block{'s' if count > 1 else ''} ({shown}{more})")
            continue
        size, kept = sum(g.size for g in groups), sum(len(g.keep) for g in groups)
        lines.append(f"removed: {size - kept} of {size} {kind} in {count} group{'s' if count > 1 else ''}")
    return lines


def _signature(result: PruneResult) -> list[str]:
    """The inputs and outputs that shrank, axis by axis."""
    return [
        f"new signature: {e.kind} '{e.name}', axis {e.axis}: {len(e.keep)} of {e.size} positions"
        for e in result.plan.interface
    ]
