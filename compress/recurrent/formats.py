"""The formats of a matrix: the tensor network that each stands for, of any modes and ranks.

    dense                the matrix
    svd                  (n, r) and (m, r)
    cp                   a vector for each mode and term (Hitchcock, 1927)
    tucker               a core, and a factor for each mode (Tucker, 1966)
    tensor_train         a chain over n_1 ... n_d, m_d ... m_1, of 2d - 1 ranks (Oseledets,
                         "Tensor-Train Decomposition", 2011); a matrix-product state
    tensor_train_matrix  a chain over pairs (n_i, m_i), of d - 1 ranks (Novikov et al.,
                         "Tensorizing Neural Networks", 2015); a matrix-product operator
    tensor_ring          the first chain, closed by one more rank (Zhao et al., "Tensor Ring
                         Decomposition", 2016)
    block_term           a sum of Tucker tensors over pairs; ranks: the terms, then d of each core
                         (Ye et al., "Learning Compact Recurrent Neural Networks with Block-Term
                         Tensor Decomposition", 2018)
    hierarchical_tucker  a tree over pairs; ranks: d of the leaves, d - 2 within (Hackbusch and
                         Kühn, "A New Scheme for the Tensor Representation", 2009)
    kronecker            a sum of Kronecker products of matrices (m_i, n_i); rank: the terms
    kcp                  the same, each matrix of low rank; ranks: the terms, and that of all
                         matrices (Wang et al., "Kronecker CP Decomposition with Fast
                         Multiplication for Compressing RNNs", 2021)

Labels: n1 and m1, modes; r1, ranks; k, terms.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from compress.decompose.linalg import check_ranks
from compress.errors import CompressError, RankError
from compress.recurrent.modes import Modes
from compress.recurrent.network import TensorNetwork

Ranks = tuple[int, ...]
Factors = dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write a matrix as a tensor network; stateless."""

    limits: Callable[[Modes], Ranks]
    """The greatest ranks; above them a factor would hold more than it can use."""
    wiring: Callable[[int], tuple[tuple[str, ...], Factors]]
    """Of d modes: the labels of the ranks, and the factors."""

    def network(self, modes: Modes, ranks: Ranks) -> TensorNetwork:
        """The network of a matrix (M, N) with these modes.

        Raises:
            RankError: another number of ranks, or one that is no integer from 1 to its limit.
        """
        check_ranks(ranks, self.limits(modes))
        inputs, outputs = (labels(side, modes.order) for side in ("n", "m"))
        names, factors = self.wiring(modes.order)
        sizes = dict(zip(inputs + outputs, modes.inputs + modes.outputs, strict=True))
        shared = ranks[-1:] * (len(names) - len(ranks))  # the last may be that of several labels
        sizes |= zip(names, ranks + shared, strict=True)
        return TensorNetwork(sizes, inputs, outputs, factors)

    def uniform(self, modes: Modes, rank: int) -> Ranks:
        """Every rank the same, or its limit where that is less."""
        return tuple(min(rank, limit) for limit in self.limits(modes))


def labels(letter: str, count: int) -> tuple[str, ...]:
    """The letter numbered from 1."""
    return tuple(f"{letter}{i}" for i in range(1, count + 1))


def pairs(modes: Modes) -> Ranks:
    """n_i m_i, the sizes of a matrix folded into one mode for each pair."""
    return tuple(n * m for n, m in zip(modes.inputs, modes.outputs, strict=True))


def chained(modes: Modes) -> Ranks:
    """n_1 ... n_d, m_d ... m_1, the sizes of a matrix folded into one mode for each."""
    return modes.inputs + modes.outputs[::-1]


def cuts(sizes: Ranks) -> Ranks:
    """The ranks of the unfoldings of a tensor after each mode but the last, at most."""
    return tuple(min(math.prod(sizes[:i]), math.prod(sizes[i:])) for i in range(1, len(sizes)))


def _rest(sizes: Ranks) -> int:
    """The terms with which a sum of products over these modes holds every tensor."""
    return math.prod(sizes) // max(sizes)


def _sides(order: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return labels("n", order), labels("m", order)


def _dense(order: int) -> tuple[tuple[str, ...], Factors]:
    inputs, outputs = _sides(order)
    return (), {"weight": outputs + inputs}


def _svd(order: int) -> tuple[tuple[str, ...], Factors]:
    inputs, outputs = _sides(order)
    return ("r",), {"in_factor": ("r", *inputs), "out_factor": (*outputs, "r")}


def _cp(order: int) -> tuple[tuple[str, ...], Factors]:
    modes = sum(_sides(order), ())
    return ("r",), {f"factor_{mode}": (mode, "r") for mode in modes}


def _tucker(order: int) -> tuple[tuple[str, ...], Factors]:
    modes, ranks = sum(_sides(order), ()), labels("r", 2 * order)
    factors: Factors = {"core": ranks}
    for mode, rank in zip(modes, ranks, strict=True):
        factors[f"factor_{mode}"] = (mode, rank)
    return ranks, factors


def _tensor_train(order: int) -> tuple[tuple[str, ...], Factors]:
    inputs, outputs = _sides(order)
    return _chain([(mode,) for mode in inputs + outputs[::-1]])


def _tensor_train_matrix(order: int) -> tuple[tuple[str, ...], Factors]:
    return _chain(list(zip(*_sides(order), strict=True)))


def _chain(modes: list[tuple[str, ...]]) -> tuple[tuple[str, ...], Factors]:
    ranks = labels("r", len(modes) - 1)
    before, after = ((), *((rank,) for rank in ranks)), (*((rank,) for rank in ranks), ())
    factors = {
        f"core_{i}": left + own + right
        for i, (left, own, right) in enumerate(zip(before, modes, after, strict=True), 1)
    }
    return ranks, factors


def _tensor_ring(order: int) -> tuple[tuple[str, ...], Factors]:
    inputs, outputs = _sides(order)
    ranks = labels("r", 2 * order)
    cores = zip(ranks, inputs + outputs[::-1], (*ranks[1:], ranks[0]), strict=True)
    return ranks, {f"core_{i}": core for i, core in enumerate(cores, 1)}


def _block_term(order: int) -> tuple[tuple[str, ...], Factors]:
    ranks = labels("r", order)
    factors: Factors = {"core": ("k", *ranks)}
    for i, (n, m, rank) in enumerate(zip(*_sides(order), ranks, strict=True), 1):
        factors[f"factor_{i}"] = ("k", n, m, rank)
    return ("k", *ranks), factors


def _hierarchical_tucker(order: int) -> tuple[tuple[str, ...], Factors]:
    leaves = labels("r", order)
    factors: Factors = {
        f"leaf_{i}": (n, m, rank)
        for i, (n, m, rank) in enumerate(zip(*_sides(order), leaves, strict=True), 1)
    }
    spans = tree(order)
    bonds = {span: f"s{i}" for i, span in enumerate(spans[1:], 1)}
    bonds |= {(i, i + 1): leaf for i, leaf in enumerate(leaves)}
    for i, (begin, end) in enumerate(spans):
        middle = (begin + end) // 2
        own = (bonds[begin, end],) if i else ()
        factors[f"transfer_{i}"] = (bonds[begin, middle], bonds[middle, end], *own)
    return leaves + tuple(bonds[span] for span in spans[1:]), factors


def tree(order: int) -> list[tuple[int, int]]:
    """The modes [begin, end) under each inner node of a balanced tree, the root first.

    Each node parts its modes in the middle.
    """
    spans = [(0, order)]
    for begin, end in spans:  # grows while it is read
        middle = (begin + end) // 2
        spans += [(a, b) for a, b in ((begin, middle), (middle, end)) if b - a > 1]
    return spans


def _tree_limits(modes: Modes) -> Ranks:
    if modes.order == 1:
        raise RankError("one mode of each side came; two, for a tree, were wanted")
    sizes = pairs(modes)
    leaves = [(i, i + 1) for i in range(modes.order)]
    return tuple(
        min(math.prod(sizes[a:b]), math.prod(sizes[:a] + sizes[b:]))
        for a, b in (*leaves, *tree(modes.order)[1:])
    )


def _kronecker(order: int) -> tuple[tuple[str, ...], Factors]:
    modes = enumerate(zip(*_sides(order), strict=True), 1)
    return ("k",), {f"factor_{i}": ("k", m, n) for i, (n, m) in modes}


def _kcp(order: int) -> tuple[tuple[str, ...], Factors]:
    ranks = labels("r", order)
    factors: Factors = {}
    for i, (n, m, rank) in enumerate(zip(*_sides(order), ranks, strict=True), 1):
        factors[f"in_{i}"] = ("k", n, rank)
        factors[f"out_{i}"] = ("k", m, rank)
    return ("k", *ranks), factors


def _most_rank(modes: Modes) -> int:
    """Of matrices (m_i, n_i): at it all of them may be any."""
    return max(map(min, modes.inputs, modes.outputs))


FORMATS: Final[Mapping[str, Format]] = {
    "dense": Format(lambda _: (), _dense),
    "svd": Format(lambda modes: (min(modes.in_features, modes.out_features),), _svd),
    "cp": Format(lambda modes: (_rest(chained(modes)),), _cp),
    "tucker": Format(lambda modes: modes.inputs + modes.outputs, _tucker),
    "tensor_train": Format(lambda modes: cuts(chained(modes)), _tensor_train),
    "tensor_train_matrix": Format(lambda modes: cuts(pairs(modes)), _tensor_train_matrix),
    "tensor_ring": Format(
        lambda modes: (max(cuts(chained(modes))),) * 2 * modes.order, _tensor_ring
    ),
    "block_term": Format(lambda modes: (_rest(pairs(modes)), *pairs(modes)), _block_term),
    "hierarchical_tucker": Format(_tree_limits, _hierarchical_tucker),
    "kronecker": Format(lambda modes: (_rest(pairs(modes)),), _kronecker),
    "kcp": Format(lambda modes: (_rest(pairs(modes)), _most_rank(modes)), _kcp),
}


def network_of(name: str, modes: Modes, ranks: Ranks) -> TensorNetwork:
    """The network of a format by its name.

    Raises:
        CompressError: there is no such format, or it does not allow these ranks.
    """
    if name not in FORMATS:
        raise CompressError(f"no format {name!r}; known are {', '.join(FORMATS)}")
    return FORMATS[name].network(modes, ranks)
