"""torchvision.models: residual networks (He et al., 2015) and VGG, with torchvision's names.

There are no weights to download here: load a state dict with `torch.load`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlgpu import Tensor, flatten, nn
from mlgpu.errors import MissingNameError

Norm = Callable[[int], nn.Module]


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside the identity."""

    expansion = 1

    def __init__(self, inplanes: int, planes: int, stride: int = 1,
                 downsample: nn.Module | None = None, norm_layer: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv1 = _conv(inplanes, planes, 3, stride)
        self.bn1 = norm_layer(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv(planes, planes, 3)
        self.bn2 = norm_layer(planes)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """The block's result, (N, planes, H / stride, W / stride)."""
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """A 3 x 3 convolution between two of 1 x 1, beside the identity."""

    expansion = 4

    def __init__(self, inplanes: int, planes: int, stride: int = 1,
                 downsample: nn.Module | None = None, norm_layer: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv1 = _conv(inplanes, planes, 1)
        self.bn1 = norm_layer(planes)
        self.conv2 = _conv(planes, planes, 3, stride)
        self.bn2 = norm_layer(planes)
        self.conv3 = _conv(planes, planes * self.expansion, 1)
        self.bn3 = norm_layer(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """The block's result, (N, 4 planes, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(out)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """A stem, four stages of blocks at half the resolution each, and a linear classifier."""

    def __init__(self, block: type[BasicBlock | Bottleneck], layers: list[int],
                 num_classes: int = 1000, zero_init_residual: bool = False,
                 norm_layer: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        self.inplanes = 64
        self._norm = norm_layer
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = norm_layer(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = self._stage(block, 64, layers[0], 1)
        self.layer2 = self._stage(block, 128, layers[1], 2)
        self.layer3 = self._stage(block, 256, layers[2], 2)
        self.layer4 = self._stage(block, 512, layers[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512 * block.expansion, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif zero_init_residual and isinstance(module, (BasicBlock, Bottleneck)):
                last: Any = module.bn3 if isinstance(module, Bottleneck) else module.bn2
                nn.init.zeros_(last.weight)

    def _stage(self, block: type[BasicBlock | Bottleneck], planes: int, count: int, stride: int
               ) -> nn.Sequential:
        downsample = None
        if stride != 1 or self.inplanes != planes * block.expansion:
            downsample = nn.Sequential(_conv(self.inplanes, planes * block.expansion, 1, stride),
                                       self._norm(planes * block.expansion))
        blocks = [block(self.inplanes, planes, stride, downsample, self._norm)]
        self.inplanes = planes * block.expansion
        blocks += [block(self.inplanes, planes, norm_layer=self._norm) for _ in range(1, count)]
        return nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, num_classes) of images (N, 3, H, W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(flatten(self.avgpool(x), 1))  # type: ignore[no-any-return]


class VGG(nn.Module):
    """Stacks of 3 x 3 convolutions with a pooling after each, then three linear layers.

    Simonyan and Zisserman, 2014.
    """

    def __init__(self, widths: list[list[int]], num_classes: int = 1000, dropout: float = 0.5
                 ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for stage in widths:
            for width in stage:
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = width
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096), nn.ReLU(True), nn.Dropout(dropout),
            nn.Linear(4096, 4096), nn.ReLU(True), nn.Dropout(dropout),
            nn.Linear(4096, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, num_classes) of images (N, 3, H, W)."""
        return self.classifier(flatten(self.avgpool(self.features(x)), 1))  # type: ignore[no-any-return]


def _network(name: str, kind: Callable[..., nn.Module], *sizes: Any) -> Callable[..., nn.Module]:
    def make(*, weights: Any = None, progress: bool = True, **options: Any) -> nn.Module:
        if weights is not None:
            raise MissingNameError(f"torchvision.models.{name}: mlgpu downloads no weights; load "
                                   "a state dict with torch.load")
        return kind(*sizes, **options)

    make.__name__, make.__doc__ = name, f"{name}, with random weights."
    return make


resnet18 = _network("resnet18", ResNet, BasicBlock, [2, 2, 2, 2])
resnet34 = _network("resnet34", ResNet, BasicBlock, [3, 4, 6, 3])
resnet50 = _network("resnet50", ResNet, Bottleneck, [3, 4, 6, 3])
resnet101 = _network("resnet101", ResNet, Bottleneck, [3, 4, 23, 3])
resnet152 = _network("resnet152", ResNet, Bottleneck, [3, 8, 36, 3])
_WIDTHS = (64, 128, 256, 512, 512)
vgg11 = _network("vgg11", VGG, [[w] * n for w, n in zip(_WIDTHS, (1, 1, 2, 2, 2), strict=True)])
vgg13 = _network("vgg13", VGG, [[w] * 2 for w in _WIDTHS])
vgg16 = _network("vgg16", VGG, [[w] * n for w, n in zip(_WIDTHS, (2, 2, 3, 3, 3), strict=True)])
vgg19 = _network("vgg19", VGG, [[w] * n for w, n in zip(_WIDTHS, (2, 2, 4, 4, 4), strict=True)])


class _Weights(type):
    """A class of trained weights: it can be named, and none of its members is here."""

    def __getattr__(cls, name: str) -> Any:
        raise MissingNameError(f"torchvision.models.{cls.__name__}.{name}: mlgpu downloads no "
                               "weights; load a state dict with torch.load")


def __getattr__(name: str) -> Any:
    if name.endswith("_Weights"):
        return _Weights(name, (), {})
    raise AttributeError(name)
