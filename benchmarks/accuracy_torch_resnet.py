"""The kit's CIFAR ResNets as torch modules with BatchNorm, with the weights of an ONNX file.

Runs in the Python that has torch.  Files whose BatchNorm layers were folded into the convolutions get
them back: the layer's mean and variance are estimated on calibration images, and scale and shift are chosen
so that it does nothing but add the folded bias.  The scale is then the standard deviation of the layer's
output, which is what it was before the folding, up to the difference between the samples.  What stays lost is
the scale of the weights in front of it, so that magnitudes are those of the folded weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

BATCH = 128
Images = npt.NDArray[np.float32]


class Block(nn.Module):
    """Two convolutions and a shortcut without parameters: strided, and padded with zero channels."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride = stride
        self.added = (width - before) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.added:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.added, self.added))
        return functional.relu(y + x)


class ResNet(nn.Module):
    """Three stages of as many blocks."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, 1)
        self.layer2 = self._stage(16, 32, blocks, 2)
        self.layer3 = self._stage(32, 64, blocks, 2)
        self.linear = nn.Linear(64, 10)

    @staticmethod
    def _stage(before: int, width: int, blocks: int, stride: int) -> nn.Sequential:
        first = Block(before, width, stride)
        return nn.Sequential(first, *(Block(width, width, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(functional.avg_pool2d(x, 8).flatten(1))

    def outside_blocks(self) -> list[nn.Module]:
        """Every layer whose output is the residual stream or the logits."""
        inner = [block.conv2 for block in self.modules() if isinstance(block, Block)]
        return [self.conv1, *inner, self.linear]


def batches(images: Images) -> Iterator[Tensor]:
    for start in range(0, len(images), BATCH):
        yield torch.from_numpy(images[start : start + BATCH])


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def reestimate(network: nn.Module, images: Images) -> None:
    """New running statistics: the average over batches, as torch computes it in training mode."""
    for norm in norms(network):
        norm.reset_running_stats()
        norm.momentum = None
    network.train()
    with torch.no_grad():
        for batch in batches(images):
            network(batch)
    network.eval()


def augmented(images: Images, seed: int) -> Images:
    """Mirrored and shifted by up to four pixels on black, as such networks are trained."""
    rng = np.random.default_rng(seed)
    black = images.min(axis=(0, 2, 3), keepdims=True)
    size = images.shape[-1]
    canvas = np.broadcast_to(black, (len(images), images.shape[1], size + 8, size + 8)).copy()
    canvas[:, :, 4:-4, 4:-4] = images
    moved = np.empty_like(images)
    for i, (top, left, mirror) in enumerate(rng.integers(0, [9, 9, 2], (len(images), 3))):
        crop = canvas[i, :, top : top + size, left : left + size]
        moved[i] = crop[:, :, ::-1] if mirror else crop
    return moved


def _conv_names(network: nn.Module) -> list[tuple[str, str]]:
    """Names of the convolutions, and of the BatchNorm behind each."""
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    return [(name, name.replace("conv", "bn")) for name in names]


def _unfold(network: ResNet, biases: dict[str, Tensor], images: Images) -> None:
    """BatchNorm layers that only add these biases, one after the other along the network.

    All at once does as well: as long as a layer passes its input on unchanged but for the bias, the layers
    behind it see what they saw in the folded network.
    """
    for norm in norms(network):
        norm.weight.data.fill_(1.0)
        norm.running_var.fill_(1.0 - norm.eps)
    for name, bias in biases.items():
        network.get_submodule(name).bias.data.copy_(bias)
    sums = {name: [torch.zeros(2, len(bias), dtype=torch.float64), 0] for name, bias in biases.items()}

    def watch(name: str) -> RemovableHandle:
        def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            x = inputs[0]
            sums[name][0] += torch.stack([x.sum((0, 2, 3)), x.square().sum((0, 2, 3))]).double()
            sums[name][1] += x.numel() // x.shape[1]

        return network.get_submodule(name).register_forward_hook(hook)

    hooks = [watch(name) for name in biases]
    network.eval()
    with torch.no_grad():
        for batch in batches(images):
            network(batch)
    for hook in hooks:
        hook.remove()
    for name, (total, count) in sums.items():
        norm = network.get_submodule(name)
        mean, square = total / count
        variance = square - mean.square()
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.data.copy_((variance + norm.eps).sqrt())
        norm.bias.data.add_(mean.float())


def load_resnet(path: Path, images: Images) -> ResNet:
    """The network of an ONNX file in which the parameters have the torch module's names.

    Args:
        path: with BatchNorm layers, or with biases of the convolutions called `NAME.weight_bias`.
        images: for the statistics where there are no BatchNorm layers.
    """
    tensors = {
        t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in onnx.load(path).graph.initializer
    }
    blocks = sum(name.startswith("layer1.") and name.endswith("conv1.weight") for name in tensors)
    network = ResNet(blocks)
    biases = {}
    for conv, norm in _conv_names(network):
        network.get_submodule(conv).weight.data.copy_(tensors[f"{conv}.weight"])
        if f"{conv}.weight_bias" in tensors:
            biases[norm] = tensors[f"{conv}.weight_bias"]
        else:
            layer = network.get_submodule(norm)
            for part in ("weight", "bias", "running_mean", "running_var"):
                getattr(layer, part).data.copy_(tensors[f"{norm}.{part}"])
    network.linear.weight.data.copy_(tensors["linear.weight"])
    network.linear.bias.data.copy_(tensors["linear.bias"])
    network.eval()
    if biases:
        _unfold(network, biases, images)
    return network
