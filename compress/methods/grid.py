"""Which ranks are worth trying: cheaper than the dense layer, and not too many of them."""

from collections.abc import Callable, Iterable

from compress.shape import (
    ConvShape,
    LayerShape,
    Size,
    Stage,
    stage_macs,
    stage_parameters,
)

MOST = 12  # ranks of one method for one layer
OUTPUT_SIDE = 512  # so large that the rim of the image does not decide


def multiples(step: int, limit: int) -> Iterable[tuple[int]]:
    """One free rank: the multiples of `step` up to `limit`."""
    return ((rank,) for rank in range(step, limit + 1, step))


def proportional(step: int, counts: tuple[int, int]) -> list[tuple[int, int]]:
    """Two free ranks in proportion to the channel counts, each rounded to the step; ascending."""
    if min(counts) < step:
        return []
    wider = max(counts)
    pairs = (
        (
            rounded(counts[0] * rank / wider, step, counts[0]),
            rounded(counts[1] * rank / wider, step, counts[1]),
        )
        for rank in range(step, wider + 1, step)
    )
    return list(dict.fromkeys(pairs))


def rounded(rank: float, step: int, limit: int) -> int:
    """The nearest multiple of `step` from one step to `limit`."""
    return min(max(round(rank / step), 1), limit // step) * step


def cheaper_ranks(
    shape: LayerShape,
    lattice: Iterable[tuple[int, ...]],
    layout: Callable[[LayerShape, tuple[int, ...]], tuple[Stage, ...]],
) -> list[tuple[int, ...]]:
    """Those of `lattice` whose stages have fewer parameters and fewer MACs than the layer.

    The size of the image is not known here. One is assumed that lets each stage count at its
    own resolution: what comes before the stride runs on the larger image.
    """
    size = _assumed_size(shape)
    return [
        ranks
        for ranks in lattice
        if stage_parameters(stages := layout(shape, ranks)) < shape.parameters
        and stage_macs(stages, size) < shape.macs(size)
    ]


def _assumed_size(shape: LayerShape) -> Size:
    if not isinstance(shape, ConvShape):
        return 1, 1
    return tuple(
        OUTPUT_SIDE * stride + dilation * (kernel - 1)
        for stride, dilation, kernel in zip(
            shape.stride, shape.dilation, shape.kernel_size, strict=True
        )
    )


def thinned(ranks: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """At most `MOST` of ascending `ranks`, the first and the last among them, evenly in ratio."""
    kept = list(ranks)
    while len(kept) > MOST:
        ratios = [sum(kept[i + 1]) / sum(kept[i - 1]) for i in range(1, len(kept) - 1)]
        del kept[1 + ratios.index(min(ratios))]
    return kept
