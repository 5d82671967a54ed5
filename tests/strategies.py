"""Hypothesis strategies of our own domain: kernels, samples of their inputs, shapes of layers."""

import math
from dataclasses import asdict

import torch
from hypothesis import strategies as st

from compress.errors import RankError
from compress.shape import ConvShape, TransposedShape

SEEDS = st.integers(0, 2**16)


@st.composite
def kernels(draw, most_channels=7, most_places=3):
    """(O, I, kh, kw) in float64; now and then with dead outputs, or of low rank."""
    outputs, inputs = (draw(st.integers(1, most_channels)) for _ in range(2))
    places = tuple(draw(st.integers(1, most_places)) for _ in range(2))
    weight = normal(draw(SEEDS), outputs, inputs, *places)
    if draw(st.booleans()):
        weight[: outputs // 2] = 0
    if draw(st.booleans()):
        weight[:, -1] = 2 * weight[:, 0]
    return weight


@st.composite
def inputs_of(draw, weight):
    """Samples (n, D) of what the layer of `weight` is applied to, in float64.

    Correlated, of very different variances, and often fewer than D.
    """
    size = weight[0].numel()
    count = draw(st.integers(1, 2 * size))
    samples = normal(draw(SEEDS), count, size) @ normal(draw(SEEDS), size, size)
    decades = draw(st.floats(0, 3))
    return samples * torch.logspace(0, -decades, size, dtype=torch.float64)


@st.composite
def conv_shapes(draw, most_channels=6, axes=2, most_groups=1):
    """Convolutions over so many axes in every geometry that torch accepts."""

    def sizes(least, most):
        return st.tuples(*[st.integers(least, most)] * axes)

    groups = draw(st.integers(1, most_groups))
    stride = draw(sizes(1, 3))
    paddings = [sizes(0, 2), st.just("valid")]
    if set(stride) == {1}:
        paddings.append(st.just("same"))
    return ConvShape(
        in_channels=groups * draw(st.integers(1, most_channels // groups)),
        out_channels=groups * draw(st.integers(1, most_channels // groups)),
        kernel_size=tuple(draw(st.integers(1, most)) for most in (4, 3, 3)[:axes]),
        stride=stride,
        padding=draw(st.one_of(paddings)),
        dilation=draw(sizes(1, 2)),
        groups=groups,
        padding_mode=draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"])),
        bias=draw(st.booleans()),
    )


@st.composite
def transposed_shapes(draw, most_channels=6, axes=2, most_groups=1):
    """Transposed convolutions in every geometry that torch accepts and that puts out something."""
    base = draw(conv_shapes(most_channels, axes, most_groups))
    reach = [d * (k - 1) for d, k in zip(base.dilation, base.kernel_size, strict=True)]
    more = [max(s, d) - 1 for s, d in zip(base.stride, base.dilation, strict=True)]
    return TransposedShape(
        **{
            **asdict(base),
            "padding": tuple(draw(st.integers(0, min(n, 2))) for n in reach),
            "padding_mode": "zeros",
            "output_padding": tuple(draw(st.integers(0, most)) for most in more),
        }
    )


@st.composite
def any_conv_shapes(draw, most_channels=6, most_groups=3):
    """Convolutions and transposed ones over one to three axes."""
    kind = draw(st.sampled_from([conv_shapes, transposed_shapes]))
    return draw(kind(most_channels, draw(st.integers(1, 3)), most_groups))


def ranks_of(method, shape, most=math.inf):
    """Ranks that the method takes, none above `most`: numbers of slices are divisors."""

    def taken(ranks):
        try:
            return bool(method.stages(shape, ranks))
        except RankError:
            return False

    limits = method.limits(shape)
    return st.tuples(*(st.integers(1, min(limit, most)) for limit in limits)).filter(taken)


def normal(seed, *size):
    """Standard normal values in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*size, dtype=torch.float64, generator=generator)


def second_moment(samples):
    """(D, D) of samples (n, D)."""
    return samples.T @ samples / len(samples)


def sampled_error(weight, approximation, samples):
    """Squared relative output error by its definition: outputs on the samples, compared."""
    outputs = samples @ weight.flatten(1).T
    return float((samples @ approximation.flatten(1).T - outputs).square().sum()) / float(
        outputs.square().sum()
    )
