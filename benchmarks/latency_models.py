"""Exports the networks of latency.py, and what Torch-Pruning makes of them.

    pip install torch torchvision timm transformers onnx
    pip install --no-deps torch-pruning==1.6.1

    python benchmarks/latency_models.py DIR

Writes NAME.onnx, and NAME.tp.onnx (Torch-Pruning's defaults) and NAME.tp16.onnx (its round_to=16), whose
pruning ratios are searched so that the given share of the multiply-adds is kept. Weights are random, which
does not change what a layer takes. The batch size is left open.
"""

from __future__ import annotations

import argparse
import copy
import time
import warnings
from pathlib import Path
from typing import Any

from export_zoo import make_torchvision_importable

make_torchvision_importable()

import torch  # noqa: E402
from speed import OPSET, Subject, resnet50, vit  # noqa: E402

SEARCH_STEPS = 9
LENGTH = 128


def mobilenetv2() -> Subject:
    import torchvision

    image = torch.randn(1, 3, 224, 224)
    return Subject(
        torchvision.models.mobilenet_v2().eval(), {"x": image}, 0.3, lambda net: [net.classifier[1]]
    )


def bert() -> Subject:
    """A BERT-base-shaped encoder without its embeddings: 12 layers, 768 wide, 12 heads."""
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertLayer

    config = BertConfig(attn_implementation="eager")

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(BertLayer(config) for _ in range(12))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                found = layer(x)
                x = found[0] if isinstance(found, tuple) else found
            return x

    def heads(network: Any) -> dict[str, Any]:
        own = [layer.attention.self for layer in network.layers]
        return {"num_heads": {m: 12 for a in own for m in (a.query, a.key, a.value)}}

    def mend(network: Any) -> None:
        for layer in network.layers:
            own = layer.attention.self
            own.attention_head_size = own.query.out_features // own.num_attention_heads
            own.all_head_size = own.query.out_features

    def ignored(network: Any) -> list[Any]:
        return [m for layer in network.layers for m in (layer.attention.output.dense, layer.output.dense)]

    note = "Torch-Pruning: the residual width, which is the model's interface, stays"
    return Subject(Encoder().eval(), {"x": torch.randn(1, LENGTH, 768)}, 0.5, ignored, heads, mend, note)


SUBJECTS = {"resnet50": resnet50, "mobilenetv2": mobilenetv2, "vit_s": vit, "bert": bert}


def count_macs(network: Any, inputs: tuple[Any, ...]) -> int:
    """Multiply-adds of convolutions and linear layers."""
    total = 0

    def hook(module: Any, given: Any, output: Any) -> None:
        nonlocal total
        if isinstance(module, torch.nn.Linear):
            total += output.numel() * module.in_features
        else:
            total += output.numel() * module.weight[0].numel()

    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    hooks = [m.register_forward_hook(hook) for m in network.modules() if isinstance(m, kinds)]
    network(*inputs)
    for handle in hooks:
        handle.remove()
    return total


def pruned(subject: Subject, ratio: float, round_to: int | None) -> Any:
    import torch_pruning as tp

    network = copy.deepcopy(subject.network)
    with torch.enable_grad():  # its dependency graph is read off autograd
        pruner = tp.pruner.MetaPruner(
            network, tuple(subject.inputs.values()), importance=tp.importance.MagnitudeImportance(p=2),
            pruning_ratio=ratio, ignored_layers=subject.ignored(network), round_to=round_to,
            **subject.options(network),
        )  # fmt: skip
        pruner.step()
    subject.mend(network)
    return network


def to_share(subject: Subject, share: float, round_to: int | None) -> tuple[Any, float]:
    """The network of the least ratio that keeps no more than a share of the multiply-adds."""
    inputs = tuple(subject.inputs.values())
    dense = count_macs(subject.network, inputs)
    low, high = 0.0, 0.9
    best: tuple[Any, float] | None = None
    for _ in range(SEARCH_STEPS):
        ratio = (low + high) / 2
        network = pruned(subject, ratio, round_to)
        kept = count_macs(network, inputs) / dense
        if kept <= share:
            high, best = ratio, (network, kept)
        else:
            low = ratio
    if best is None:
        message = "no ratio is enough"
        raise RuntimeError(message)
    return best


def export(network: Any, subject: Subject, path: Path) -> None:
    torch.onnx.export(
        network, tuple(subject.inputs.values()), path, dynamo=False, opset_version=OPSET,
        input_names=list(subject.inputs), output_names=["output"],
        dynamic_axes={name: {0: "batch"} for name in subject.inputs},
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="of the multiply-adds that is kept")
    parser.add_argument("--only", nargs="*", default=[*SUBJECTS], choices=[*SUBJECTS])
    parser.add_argument("--no-torch-pruning", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    with torch.no_grad():
        for name in options.only:
            subject = SUBJECTS[name]()
            export(subject.network, subject, options.folder / f"{name}.onnx")
            print(name, "exported", flush=True)
            for suffix, round_to in () if options.no_torch_pruning else (("tp", None), ("tp16", 16)):
                start = time.perf_counter()
                try:
                    network, kept = to_share(subject, options.share, round_to)
                    export(network, subject, options.folder / f"{name}.{suffix}.onnx")
                except Exception as error:  # another tool's limits are a result, not a failure of this run
                    print(f"{name}.{suffix}: failed: {type(error).__name__}: {error}", flush=True)
                    continue
                seconds = time.perf_counter() - start
                print(f"{name}.{suffix}: {kept:.1%} of the multiply-adds, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
