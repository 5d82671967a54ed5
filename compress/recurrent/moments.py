"""Second moments of what each weight of a recurrent layer is multiplied by, from a few inputs."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from compress.errors import CompressError
from compress.recurrent.layer import Recurrent, State
from compress.recurrent.surgery import copied
from compress.shrinkage import shrunk


def moments_of(
    layer: nn.RNNBase, batches: Iterable[Tensor | PackedSequence | tuple[Any, Any]]
) -> dict[str, Tensor]:
    """Of the inputs x_t and of the states h_(t-1), in float64, by the names of the weights.

    Of few vectors they are drawn towards equal variances. `weight_hr` has none.

    Args:
        layer: left as it is.
        batches: what the layer takes; with a first state, a tuple of both.

    Raises:
        CompressError: no batch came, or the moments are not finite.
    """
    watched = copied(layer, _Watched).eval()
    with torch.no_grad():
        for batch in batches:
            both = type(batch) is tuple
            watched(*batch) if both else watched(batch)
    if not watched.sums:
        raise CompressError("no batch came; one at least was wanted")
    for name, total in watched.sums.items():
        if not bool(total.isfinite().all()):
            raise CompressError(f"what {name} is multiplied by holds NaN or infinite values")
    return {
        name: shrunk(total / watched.counts[name], watched.counts[name])
        for name, total in watched.sums.items()
    }


class _Watched(Recurrent):
    """Adds up products of the vectors that come to each weight."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = defaultdict(int)

    def way(
        self, suffix: str, data: Tensor, state: State, sizes: Sequence[int] | None
    ) -> tuple[Tensor, State]:
        outputs, last = super().way(suffix, data, state, sizes)
        # Every output is the state before another step, but the last one of each sequence.
        states = _products(outputs) - _products(last[0]) + _products(state[0])
        rows = data.shape[:-1].numel()
        for name, products in (("weight_ih", _products(data)), ("weight_hh", states)):
            self.sums[name + suffix] = self.sums.get(name + suffix, 0) + products
            self.counts[name + suffix] += rows
        return outputs, last


def _products(vectors: Tensor) -> Tensor:
    """The sum of x xᵀ."""
    rows = vectors.flatten(0, -2).double()
    return rows.T @ rows
