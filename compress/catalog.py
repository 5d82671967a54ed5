"""Names that every part of the house agrees on, importable without torch."""

from pathlib import Path
from typing import Any, Final, NamedTuple

METHODS: Final = (
    "svd",
    "spatial_svd",
    "tucker2",
    "cp3",
    "cp4",
    "tensor_train",
    "block_term",
    "kronecker",
    "semi_tensor",
    "hierarchical_tucker",
)
# Of a weight of a recurrent layer; a name that is above too means another layout there.
RECURRENT_METHODS: Final = (
    "svd",
    "kcp",
    "kronecker",
    "cp",
    "tucker",
    "tensor_train",
    "tensor_train_matrix",
    "tensor_ring",
    "block_term",
    "hierarchical_tucker",
)
ALL_METHODS: Final = tuple(dict.fromkeys(METHODS + RECURRENT_METHODS))
# Tried unless others are asked for: on digits_cnn the others made no plan faster.
DEFAULT_METHODS: Final = ("svd", "spatial_svd", "tucker2", "cp3", "cp4")


class Row(NamedTuple):
    """One layer of a network that is written as data: its name, torch type and arguments."""

    name: str
    type: str
    arguments: dict[str, Any]


# The classification networks of torchvision; a test compares them with the installed ones.
TORCHVISION: Final = frozenset(
    [
        "alexnet",
        "convnext_base",
        "convnext_large",
        "convnext_small",
        "convnext_tiny",
        "densenet121",
        "densenet161",
        "densenet169",
        "densenet201",
        "efficientnet_b0",
        "efficientnet_b1",
        "efficientnet_b2",
        "efficientnet_b3",
        "efficientnet_b4",
        "efficientnet_b5",
        "efficientnet_b6",
        "efficientnet_b7",
        "efficientnet_v2_l",
        "efficientnet_v2_m",
        "efficientnet_v2_s",
        "googlenet",
        "inception_v3",
        "maxvit_t",
        "mnasnet0_5",
        "mnasnet0_75",
        "mnasnet1_0",
        "mnasnet1_3",
        "mobilenet_v2",
        "mobilenet_v3_large",
        "mobilenet_v3_small",
        "regnet_x_16gf",
        "regnet_x_1_6gf",
        "regnet_x_32gf",
        "regnet_x_3_2gf",
        "regnet_x_400mf",
        "regnet_x_800mf",
        "regnet_x_8gf",
        "regnet_y_128gf",
        "regnet_y_16gf",
        "regnet_y_1_6gf",
        "regnet_y_32gf",
        "regnet_y_3_2gf",
        "regnet_y_400mf",
        "regnet_y_800mf",
        "regnet_y_8gf",
        "resnet101",
        "resnet152",
        "resnet18",
        "resnet34",
        "resnet50",
        "resnext101_32x8d",
        "resnext101_64x4d",
        "resnext50_32x4d",
        "shufflenet_v2_x0_5",
        "shufflenet_v2_x1_0",
        "shufflenet_v2_x1_5",
        "shufflenet_v2_x2_0",
        "squeezenet1_0",
        "squeezenet1_1",
        "swin_b",
        "swin_s",
        "swin_t",
        "swin_v2_b",
        "swin_v2_s",
        "swin_v2_t",
        "vgg11",
        "vgg11_bn",
        "vgg13",
        "vgg13_bn",
        "vgg16",
        "vgg16_bn",
        "vgg19",
        "vgg19_bn",
        "vit_b_16",
        "vit_b_32",
        "vit_h_14",
        "vit_l_16",
        "vit_l_32",
        "wide_resnet101_2",
        "wide_resnet50_2",
    ]
)


TIMM_PREFIX: Final = "timm/"

# The networks of timm, in the order it lists them; a test compares them with the installed ones.
# A name that is not here, `hf-hub:` or `local-dir:` say, would go to the network or to the disk.
TIMM: Final = frozenset(Path(__file__).with_name("timm.txt").read_text("ascii").split())


def _conv(name: str, width_in: int, width_out: int, stride: int) -> tuple[Row, Row, Row]:
    """A 3x3 convolution that keeps the image size up to its stride, batch norm and ReLU."""
    arguments = {
        "in_channels": width_in,
        "out_channels": width_out,
        "kernel_size": 3,
        "stride": stride,
        "padding": 1,
        "bias": False,
    }
    return (
        Row(f"conv{name}", "Conv2d", arguments),
        Row(f"norm{name}", "BatchNorm2d", {"num_features": width_out}),
        Row(f"relu{name}", "ReLU", {}),
    )


def _conv5(name: str, width_in: int, width_out: int) -> tuple[Row, Row, Row]:
    """A 5x5 convolution with SAME padding, ReLU and 2x2 pooling."""
    arguments = {
        "in_channels": width_in,
        "out_channels": width_out,
        "kernel_size": 5,
        "padding": 2,
    }
    return (
        Row(f"conv{name}", "Conv2d", arguments),
        Row(f"relu{name}", "ReLU", {}),
        Row(f"pool{name}", "MaxPool2d", {"kernel_size": 2}),
    )


# Our own example networks: rows of layers, so that whoever has the rows can build them.
EXAMPLES: Final[dict[str, tuple[Row, ...]]] = {
    # (N, 1, 32, 32) -> (N, 10)
    "digits_cnn": (
        *_conv("1", 1, 64, 1),
        *_conv("2", 64, 128, 2),
        *_conv("3", 128, 192, 1),
        *_conv("4", 192, 256, 2),
        Row("pool", "AdaptiveAvgPool2d", {"output_size": 1}),
        Row("flatten", "Flatten", {}),
        Row("classify", "Linear", {"in_features": 256, "out_features": 10}),
    ),
    # (N, 1, 28, 28) -> (N, 10): the network of Song et al. 2021 on MNIST
    "song_mnist": (
        *_conv5("1", 1, 32),
        *_conv5("2", 32, 64),
        Row("flatten", "Flatten", {}),
        Row("hidden", "Linear", {"in_features": 3136, "out_features": 512}),
        Row("relu3", "ReLU", {}),
        Row("dropout", "Dropout", {"p": 0.5}),
        Row("classify", "Linear", {"in_features": 512, "out_features": 10}),
    ),
    # (N, 3, 24, 24) -> (N, 10): the network of Song et al. 2021 on crops of CIFAR-10
    "song_cifar": (
        *_conv5("1", 3, 64),
        *_conv5("2", 64, 64),
        Row("flatten", "Flatten", {}),
        Row("hidden", "Linear", {"in_features": 2304, "out_features": 384}),
        Row("relu3", "ReLU", {}),
        Row("narrow", "Linear", {"in_features": 384, "out_features": 192}),
        Row("relu4", "ReLU", {}),
        Row("classify", "Linear", {"in_features": 192, "out_features": 10}),
    ),
}

# What takes the place of an architecture's name where the file brings the network itself.
PROGRAM: Final = "program"
PROGRAM_SUFFIXES: Final = (".pt2", ".onnx")

ARCHITECTURES: Final = frozenset(EXAMPLES) | TORCHVISION | {TIMM_PREFIX + name for name in TIMM}
