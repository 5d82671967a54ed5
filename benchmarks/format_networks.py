"""The networks whose forms are tried, with random weights, and inputs that are small for them.

Of each family the smallest, or nearly: what is tried is how operators are written and read, and
wider or deeper networks have no others. So vit_h_14, regnet_y_128gf and their like are left out.
"""

from typing import Final

import torch
from torch import Tensor, nn

from benchmarks.specimens import OWN, RECURRENT, WORDS
from compress.architectures import build

STEPS: Final = 7  # of a sequence of words
SIDE: Final = 32  # of images, unless a network needs more
SIDES: Final = {
    "alexnet": 63,
    "inception_v3": 75,
    "maxvit_t": 224,
    "vit_b_32": 224,
    "deeplabv3_mobilenet_v3_large": 64,
    "lraspp_mobilenet_v3_large": 64,
    "timm/crossvit_tiny_240": 240,
    "timm/edgenext_xx_small": 64,
    "timm/efficientformerv2_s0": 224,
    "timm/levit_128s": 224,
    "timm/mixer_s32_224": 224,
    "timm/mobilevit_xxs": 64,
    "timm/pvt_v2_b0": 64,
    "timm/tiny_vit_5m_224": 224,
    "timm/xcit_nano_12_p16_224": 224,
}

FROM_TORCHVISION: Final = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet",
    "inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small",
    "regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnet50", "resnext50_32x4d",
    "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11_bn", "vit_b_32",
)  # fmt: skip
FROM_TIMM: Final = (
    "timm/convnextv2_atto", "timm/crossvit_tiny_240", "timm/edgenext_xx_small",
    "timm/efficientformerv2_s0", "timm/ese_vovnet19b_dw", "timm/fastvit_t8", "timm/ghostnet_100",
    "timm/lcnet_050", "timm/levit_128s", "timm/mixer_s32_224", "timm/mixnet_s",
    "timm/mobilenetv4_conv_small", "timm/mobileone_s0", "timm/mobilevit_xxs",
    "timm/poolformer_s12", "timm/pvt_v2_b0", "timm/repvgg_a0", "timm/rexnet_100",
    "timm/tf_efficientnet_lite0", "timm/tiny_vit_5m_224", "timm/xcit_nano_12_p16_224",
)  # fmt: skip
ALL: Final = (*OWN, *FROM_TORCHVISION, *FROM_TIMM)


def specimen(name: str) -> nn.Module:
    """The network in eval mode, its random weights always the same."""
    torch.manual_seed(0)
    model = OWN[name]().eval() if name in OWN else build(name)
    _randomise_(model)
    return model


def example(name: str, batch: int) -> Tensor:
    """A batch of inputs, the same for the same arguments."""
    generator = torch.Generator().manual_seed(batch)
    if name in RECURRENT:
        return torch.randint(WORDS, (batch, STEPS), generator=generator)
    side = SIDES.get(name, SIDE)
    return torch.randn(batch, 3, side, side, generator=generator)


@torch.no_grad()
def _randomise_(model: nn.Module) -> None:
    """Other values where a fresh network has zeros and ones: a head of zeros hides every fault."""
    for parameter in model.parameters():
        if not parameter.any():
            parameter.normal_(std=0.02)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
