"""Whole prune against Torch-Pruning on the same torch networks: python benchmarks/speed.py

    pip install -e '.[torch]' torchvision timm transformers
    pip install --no-deps torch-pruning==1.6.1

Both sides start from a network (a torch module there, the ONNX file that torch.onnx.export wrote of it
here) and end with a pruned ONNX file; both take L2 norms and meet the same share of the multiply-adds: what
Torch-Pruning reached is the target here. Theirs: trace and group (MetaPruner), step, torch.onnx.export with
the TorchScript exporter, the quicker of the two. Ours: gp.prune without the oracle: read, analyse, score,
plan, rewrite, check, write. Each side has a process of its own in which everything is imported and one round
has been run; then the rounds of the two take turns, and the median counts.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

OPSET = 17


@dataclass
class Subject:
    """A network, and what Torch-Pruning has to be told about it.

    Attributes:
        network: the torch module, in eval mode.
        inputs: example inputs by name.
        ratio: share of the channels that Torch-Pruning removes.
        ignored: layers of a (copied) network that it must leave alone.
        options: further arguments of its pruner.
        mend: brings attributes that hold sizes in line afterwards.
        note: what it can't do here.
    """

    network: Any
    inputs: Mapping[str, Any]
    ratio: float
    ignored: Callable[[Any], list[Any]]
    options: Callable[[Any], dict[str, Any]] = lambda network: {}
    mend: Callable[[Any], None] = lambda network: None
    note: str = ""


def resnet50() -> Subject:
    """torchvision's ResNet-50."""
    import torch
    import torchvision

    image = torch.randn(1, 3, 224, 224)
    return Subject(torchvision.models.resnet50().eval(), {"x": image}, 0.3, lambda net: [net.fc])


def vit() -> Subject:
    """timm's ViT-S/16."""
    import timm
    import torch
    from timm.layers.attention import Attention

    def attentions(network: Any) -> list[Any]:
        return [module for module in network.modules() if isinstance(module, Attention)]

    def mend(network: Any) -> None:
        for module in attentions(network):
            module.head_dim = module.qkv.out_features // (3 * module.num_heads)
            module.attn_dim = module.head_dim * module.num_heads

    network = timm.create_model("vit_small_patch16_224").eval()
    for module in attentions(network):
        module.fused_attn = False
    return Subject(
        network,
        {"x": torch.randn(1, 3, 224, 224)},
        0.3,
        ignored=lambda net: [net.head],
        options=lambda net: {"num_heads": {m.qkv: m.num_heads for m in attentions(net)}},
        mend=mend,
    )


def swin() -> Subject:
    """timm's Swin-T.  Its residual widths break in Torch-Pruning at the patch merging, so they stay."""
    import timm
    import torch
    from timm.models.swin_transformer import PatchMerging, SwinTransformerBlock, WindowAttention

    def ignored(network: Any) -> list[Any]:
        found = [network.head.fc, network.patch_embed.proj]
        for module in network.modules():
            if isinstance(module, PatchMerging):
                found.append(module.reduction)
            elif isinstance(module, SwinTransformerBlock):
                found += [module.attn.proj, module.mlp.fc2]
        return found

    def heads(network: Any) -> dict[str, Any]:
        found = [module for module in network.modules() if isinstance(module, WindowAttention)]
        return {"num_heads": {module.qkv: module.num_heads for module in found}}

    network = timm.create_model("swin_tiny_patch4_window7_224").eval()
    for module in network.modules():
        if isinstance(module, WindowAttention):
            module.fused_attn = False
    note = "Torch-Pruning: residual widths left alone, its patch merging fails otherwise"
    return Subject(network, {"x": torch.randn(1, 3, 224, 224)}, 0.5, ignored, heads, note=note)


def llama() -> Subject:
    """A decoder of 8 layers with as many key as query heads: with fewer, Torch-Pruning does not end."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=512,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        intermediate_size=1376,
        vocab_size=32000,
        attn_implementation="eager",
        use_cache=False,
    )

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = LlamaForCausalLM(config)

        def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.decoder(input_ids=tokens, attention_mask=mask).logits

    def heads(network: Any) -> dict[str, Any]:
        layers = [layer.self_attn for layer in network.decoder.model.layers]
        linears = [linear for a in layers for linear in (a.q_proj, a.k_proj, a.v_proj)]
        return {"num_heads": dict.fromkeys(linears, 8), "prune_num_heads": True, "prune_head_dims": False}

    tokens = torch.randint(0, config.vocab_size, (1, 32))
    inputs = {"tokens": tokens, "mask": torch.ones_like(tokens)}
    return Subject(Logits().eval(), inputs, 0.3, lambda net: [net.decoder.lm_head], heads)


SUBJECTS = {"ResNet-50": resnet50, "ViT-S/16": vit, "Swin-T": swin, "Llama (8 layers)": llama}


def export(network: Any, inputs: Mapping[str, Any], path: Path, *, dynamic: bool) -> None:
    import torch

    axes = {name: {0: "batch"} for name in inputs} if dynamic else {}
    torch.onnx.export(
        network, tuple(inputs.values()), path, dynamo=False, opset_version=OPSET,
        input_names=list(inputs), output_names=["output"], dynamic_axes=axes,
    )  # fmt: skip


def torch_pruning(subject: Subject, path: Path, *, dynamic: bool) -> dict[str, float]:
    """Seconds per stage of Torch-Pruning, which leaves its result at ``path``."""
    import torch_pruning as tp

    network = copy.deepcopy(subject.network)
    ignored, options = subject.ignored(network), subject.options(network)
    marks = [time.perf_counter()]
    pruner = tp.pruner.MetaPruner(
        network,
        tuple(subject.inputs.values()),
        importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=subject.ratio,
        ignored_layers=ignored,
        **options,
    )
    marks.append(time.perf_counter())
    pruner.step()
    subject.mend(network)
    marks.append(time.perf_counter())
    export(network, subject.inputs, path, dynamic=dynamic)
    marks.append(time.perf_counter())
    return dict(zip(("trace", "step", "export"), (b - a for a, b in pairwise(marks)), strict=True))


def serve_theirs(name: str, folder: Path, *, dynamic: bool) -> None:
    """Exports the network, prunes it once, then once more for every line that comes in."""
    from export_zoo import make_torchvision_importable

    make_torchvision_importable()
    import torch

    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    subject = SUBJECTS[name]()
    with torch.no_grad():
        export(subject.network, subject.inputs, folder / "dense.onnx", dynamic=dynamic)
    torch_pruning(subject, folder / "theirs.onnx", dynamic=dynamic)
    print(json.dumps({"note": subject.note}), file=ANSWERS, flush=True)
    for _ in sys.stdin:
        (folder / "theirs.onnx").unlink()
        laps = torch_pruning(subject, folder / "theirs.onnx", dynamic=dynamic)
        print(json.dumps(laps), file=ANSWERS, flush=True)


def serve_ours(folder: Path) -> None:
    """Prunes the exported file to what Torch-Pruning reached, then once more for every line that comes in."""
    import graphprune as gp
    from graphprune.cost import measure

    models = [gp.load(folder / f"{name}.onnx") for name in ("dense", "theirs")]
    dense, theirs = (measure(model).macs for model in models)
    about: dict[str, Any] = {"nodes": len(models[0].ir.graph), "kept_theirs": theirs / dense}
    del models
    dense_file, result = folder / "dense.onnx", folder / "ours.onnx"
    target = {"macs": about["kept_theirs"]}
    about["kept_ours"] = (
        gp.prune(dense_file, result, target=target, criterion="l2", verify_result=False).after.macs / dense
    )
    print(json.dumps(about), file=ANSWERS, flush=True)
    for _ in sys.stdin:
        result.unlink()
        start = time.perf_counter()
        laps = gp.prune(dense_file, result, target=target, criterion="l2", verify_result=False).seconds
        rest = time.perf_counter() - start - sum(laps.values())
        print(json.dumps({**laps, "rest": rest}), file=ANSWERS, flush=True)


@contextmanager
def served(*arguments: str, environment: Mapping[str, str]) -> Iterator[Callable[[str], dict[str, Any]]]:
    """A process of this script that answers every line with a document; what it prints itself is dropped."""
    command = [sys.executable, __file__, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def ask(line: str) -> dict[str, Any]:
            if line:
                stdin.write(line + "\n")
                stdin.flush()
            answer: dict[str, Any] = json.loads(stdout.readline())
            return answer

        yield ask
        stdin.close()


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Per stage."""
    return {stage: round(statistics.median(laps[stage] for laps in rounds), 3) for stage in rounds[0]}


def measure_row(name: str, rounds: int, threads: int, *, dynamic: bool) -> dict[str, Any]:
    """One row, as a document."""
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    flags = ["--dynamic"] if dynamic else []
    with tempfile.TemporaryDirectory() as folder:
        common = ["--folder", folder, *flags]
        with served("--theirs", name, *common, environment=environment) as theirs:
            about = theirs("")
            with served("--ours", name, *common, environment=environment) as ours:
                about |= ours("")
                laps = [(theirs("go"), ours("go")) for _ in range(rounds)]
    seconds = [statistics.median(sum(lap[side].values()) for lap in laps) for side in (0, 1)]
    stages = [medians([lap[side] for lap in laps]) for side in (0, 1)]
    return {
        "network": name, **about, "theirs": seconds[0], "ours": seconds[1],
        "theirs_stages": stages[0], "ours_stages": stages[1],
    }  # fmt: skip


def show(rows: list[dict[str, Any]], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for column in ("network", "nodes", "macs kept", "Torch-Pruning", "graphprune", "times faster"):
        table.add_column(column, justify="left" if column == "network" else "right", no_wrap=True)
    for row in rows:
        kept = f"{row['kept_theirs']:.1%} / {row['kept_ours']:.1%}"
        seconds = [f"{row['theirs']:.2f}", f"{row['ours']:.2f}", f"{row['theirs'] / row['ours']:.1f}"]
        table.add_row(row["network"], str(row["nodes"]), kept, *seconds)
    console = Console(width=110)
    console.print(table)
    for row in rows:
        console.print(f"{row['network']}: {row['theirs_stages']} / {row['ours_stages']}", highlight=False)
        if row["note"]:
            console.print(f"  {row['note']}", highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="threads of torch (0: its own choice)")
    parser.add_argument("--only", nargs="*", default=[*SUBJECTS], choices=[*SUBJECTS])
    parser.add_argument("--dynamic", action="store_true", help="leave the batch size open in all exports")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    for hidden in ("--theirs", "--ours"):
        parser.add_argument(hidden, choices=[*SUBJECTS], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.theirs:
        serve_theirs(options.theirs, options.folder, dynamic=options.dynamic)
    elif options.ours:
        serve_ours(options.folder)
    else:
        rows = [
            measure_row(name, options.rounds, options.threads, dynamic=options.dynamic)
            for name in options.only
        ]
        show(rows, f"seconds, median of {options.rounds} rounds")
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    # Answers go out by a way of their own: exporters print.
    ANSWERS = os.fdopen(os.dup(1), "w", encoding="utf-8")
    if {"--theirs", "--ours"} & set(sys.argv):
        os.dup2(2, 1)
    main()
