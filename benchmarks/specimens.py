"""Networks that no registry has: recurrent classifiers, one that scales up again, segmentation."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn

WORDS: Final = 1000
CLASSES: Final = 10


class Recurrent(nn.Module):
    """Words (N, T) -> scores (N, 10): an embedding, two layers both ways, the last state."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 64, padding_idx=0)
        self.recurrent = kind(64, 96, 2, batch_first=True, bidirectional=True, dropout=0.2)
        self.classify = nn.Linear(192, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        outputs, _ = self.recurrent(self.embed(words))
        return self.classify(outputs[:, -1])


class UNet(nn.Module):
    """(N, 3, H, W) -> (N, 10, H, W): two halvings, and two transposed convolutions back."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = _block(3, 16), _block(16, 32), _block(32, 64)
        self.up2 = nn.ConvTranspose2d(64, 32, 2, stride=2)
        self.join2 = _block(64, 32)
        self.up1 = nn.ConvTranspose2d(32, 16, 3, stride=2, padding=1, output_padding=1)
        self.join1 = _block(32, 16)
        self.classify = nn.Conv2d(16, CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.down1(images)
        middle = self.down2(nn.functional.max_pool2d(fine, 2))
        coarse = self.up2(self.bottom(nn.functional.max_pool2d(middle, 2)))
        joined = self.up1(self.join2(torch.cat([middle, coarse], 1)))
        return self.classify(self.join1(torch.cat([fine, joined], 1)))


class Segmentation(nn.Module):
    """A segmentation network of torchvision, (N, 3, H, W) -> (N, 21, H, W): its scores alone."""

    def __init__(self, name: str) -> None:
        super().__init__()
        from torchvision import models  # noqa: PLC0415, for these networks alone

        self.network = models.get_model(name, weights=None, weights_backbone=None)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)["out"]


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Dropout2d(0.1),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.GroupNorm(4, outputs),
        nn.SiLU(inplace=True),
    )


RECURRENT: Final[Mapping[str, Callable[[], nn.Module]]] = {
    "lstm_classifier": lambda: Recurrent(nn.LSTM),
    "gru_classifier": lambda: Recurrent(nn.GRU),
}
OWN: Final[Mapping[str, Callable[[], nn.Module]]] = {
    **RECURRENT,
    "unet": UNet,
    **{
        name: partial(Segmentation, name)
        for name in ("deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large")
    },
}
