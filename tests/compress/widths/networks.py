"""Small networks whose channels can, or cannot, be taken out."""

import torch
from torch import nn
from torch.nn import functional as F

X = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def settled(model):
    """In eval mode, the norms with statistics of some inputs."""
    model.train()
    with torch.no_grad():
        model(X)
    return model.eval()


class Chain(nn.Module):
    """Convolutions, a norm, pooling and linear layers one after the other."""

    def __init__(self, padding=1):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=padding)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.hidden = nn.Linear(8 * 16, 16)
        self.classify = nn.Linear(16, 5)

    def features(self, x):
        x = F.relu(self.norm(self.first(x)))
        return F.max_pool2d(torch.relu(self.second(x)), 2)

    def forward(self, x):
        x = self.features(x)
        return self.classify(F.gelu(self.hidden(x.flatten(1))))


class Viewed(Chain):
    """Asks for the batch's size alone."""

    def forward(self, x):
        x = self.features(x)
        return self.classify(self.hidden(x.view(x.size(0), -1)))


class Fixed(Chain):
    """Says by a number how many features there are."""

    def forward(self, x):
        return self.classify(self.hidden(self.features(x).reshape(-1, 128)))


class ChannelsLast(Chain):
    """The features of one place in space, not of one channel, stand in a row."""

    def forward(self, x):
        x = self.features(x)
        return self.classify(self.hidden(x.permute(0, 2, 3, 1).flatten(1)))


class Transposed(Chain):
    """The same by an operation that is known to leave channels apart."""

    def forward(self, x):
        return self.classify(self.hidden(self.features(x).view(-1, 16, 8).mean(1).repeat(1, 16)))


class Inverted(nn.Module):
    """Expand, depthwise, project, and add: as in MobileNetV2."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 1)
        self.expand = nn.Conv2d(4, 12, 1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.after = nn.BatchNorm2d(12, affine=False)
        self.act = nn.ReLU6()
        self.project = nn.Conv2d(12, 4, 1)
        self.classify = nn.Linear(4, 5)

    def forward(self, x):
        x = self.stem(x)
        y = self.act(self.norm(self.expand(x)))
        y = self.project(self.act(self.after(self.depthwise(y))))
        return self.classify((x + y).mean((2, 3)))


class Grouped(Chain):
    """The reader mixes the channels of its groups alone."""

    def __init__(self):
        super().__init__()
        self.second = nn.Conv2d(8, 8, 3, padding=1, groups=2)


class CalledTwice(Chain):
    def forward(self, x):
        x = self.features(x)
        x = self.hidden(x.flatten(1))
        return self.classify(x) + self.classify(-x)


class Branching(Chain):
    """Python decides by a value."""

    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)
