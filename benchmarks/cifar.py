"""Two networks for CIFAR-10 of the kind that people train today, smaller than theirs."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two convolutions beside a way around them (He et al., "Deep Residual Learning", 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet20(nn.Module):
    """(N, 3, 32, 32) -> (N, 10): 0.27 million parameters, 41 million MACs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths, blocks = (16, 16, 32, 64), []
        for i, (inputs, outputs) in enumerate(pairwise(widths)):
            for place in range(3):
                first = place == 0
                stride = 2 if first and i else 1
                blocks.append(Block(inputs if first else outputs, outputs, stride))
        self.blocks = nn.Sequential(*blocks)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn1(self.conv1(x))))
        return self.linear(x.mean((2, 3)))


class VGG8(nn.Module):
    """(N, 3, 32, 32) -> (N, 10): plain 3x3 convolutions, 0.55 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for width in (32, 64, 128):
            for _ in range(2):
                layers.append(nn.Conv2d(inputs, width, 3, padding=1, bias=False))
                layers.append(nn.BatchNorm2d(width))
                layers.append(nn.ReLU())
                inputs = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Linear(128 * 16, 128)
        self.classify = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(F.relu(self.hidden(self.features(x).flatten(1))))


NETWORKS = {"resnet20": ResNet20, "vgg8": VGG8}
