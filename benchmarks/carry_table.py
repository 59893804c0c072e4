"""Plans carried back to live torch modules: python benchmarks/carry_table.py [--only 'vit*' ...]

Each network is built with perturbed weights, exported, pruned to 60 % of its multiply-adds by L2 norm over
all kinds of groups, and the plan is carried to the module.  A row says how far the carried module (torch) is
from the pruned file (onnxruntime) on the same random input: before any compensation, and with compensated
weights carried.  `cut` is how far the pruned file is from the original: what a module that ignored the plan
would be off by.
"""

from __future__ import annotations

import argparse
import fnmatch
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import zoo_models_text as text
import zoo_models_vision as vision
from export_zoo import export_torch, make_torchvision_importable, torch_network
from graphprune.converters.carrying.torch_module import carry_module
from graphprune.passes.compensators import COMPENSATORS
from zoo_spec import Exporter, Job, Spec, image

import graphprune as gp

HEAD = "| model | exporter | groups | kept params | carried | cut | compensated | notes |"


def of(specs: list[Spec], name: str) -> Spec:
    return next(spec for spec in specs if spec.name == name)


def swin() -> Any:
    from timm.models.swin_transformer import SwinTransformer

    sizes: dict[str, Any] = {"embed_dim": 48, "depths": (2, 2, 2), "num_heads": (3, 6, 12)}
    return SwinTransformer(img_size=112, num_classes=100, **sizes)


def specs() -> list[tuple[Spec, tuple[str, ...] | None]]:
    """Networks, and the kinds of groups that may be cut (None: all)."""
    full, small = vision.FULL, text.ENCODERS + text.DECODERS
    mixture = text.hf("mixtral", "MixtralForCausalLM", "Mixtral", experts="batched_mm", **text.MIXTURE)
    every = [
        Spec("resnet18", lambda: vision.torchvision_model("resnet18"), image(64)),
        of(full, "resnet50"),
        of(full, "mobilenetv2"),
        of(full, "densenet121"),
        of(full, "convnext_tiny"),
        of(full, "vit_tiny"),
        Spec("vit_torch", vision.vision_transformer, image(64)),
        Spec("swin", swin, image(112)),
        of(small, "hf_bert"),
        of(text.FULL, "bert"),
        of(small, "hf_gpt2"),
        of(text.FULL, "llama_gqa"),
        mixture,
    ]
    return [*((spec, None) for spec in every), (mixture, ("experts", "heads"))]


def row(spec: Spec, kinds: tuple[str, ...] | None, exporter: Exporter, compensator: str, folder: Path) -> str:
    job = Job(spec, exporter)
    file = folder / job.file
    module = torch_network(job).network
    started = time.perf_counter()
    export_torch(job, file)
    exported = time.perf_counter() - started
    target = {"macs": 0.6} if kinds is None else {"params": 0.8}
    found = gp.prune(
        file, target=target, criterion="l2", compensator="none", verify_result=False, kinds=kinds
    )
    cut = Counter(g.kind for g in found.plan.groups if len(g.keep) < g.size)
    started = time.perf_counter()
    carried, report = carry_module(found.plan, module, model=file)
    took = time.perf_counter() - started
    before, after = report.parameters
    other = "-"
    if compensator != "none":
        better = gp.apply(gp.load(file), found.plan, compensator=compensator, samples=16)
        try:
            _, second = carry_module(found.plan, module, model=file, weights=better)
            other = f"{second.error:.1e}"
        except gp.GraphPruneError as error:
            other = f"refused: {error.what}"
    del carried
    groups = ", ".join(f"{n} {kind}" for kind, n in cut.items())
    notes = "; ".join(report.notes)
    print(f"  export {exported:.0f} s, carry {took:.0f} s", flush=True)
    return (
        f"| {spec.name} | {exporter} | {groups} | {after / before:.1%} | {report.error:.1e} | "
        f"{report.change or float('nan'):.2f} | {other} | {notes} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=["*"], help="globs over the names")
    parser.add_argument("--exporters", nargs="+", default=["legacy", "dynamo"])
    parser.add_argument("--compensator", default="obs", choices=[*COMPENSATORS])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    make_torchvision_importable()
    print(HEAD, "|" + " --- |" * 8, sep="\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for spec, kinds in specs():
            for exporter in options.exporters:
                if not any(fnmatch.fnmatch(spec.name, glob) for glob in options.only):
                    continue
                try:
                    print(row(spec, kinds, exporter, options.compensator, Path(folder)), flush=True)
                except gp.GraphPruneError as error:
                    said = " ".join(str(error).split())
                    print(f"| {spec.name} | {exporter} | refused: {said} |", flush=True)


if __name__ == "__main__":
    main()
