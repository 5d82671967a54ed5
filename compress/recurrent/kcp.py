"""The two algorithms of a Kronecker-CP matrix, and their MACs in closed form.

W = sum over k of (A_k1 B_k1ᵀ) x ... x (A_kd B_kdᵀ), with A_ki (m_i, R) and B_ki (n_i, R): Wang et
al., "Kronecker CP Decomposition with Fast Multiplication for Compressing RNNs", 2021. Both are
orders among which `best_order` chooses: it never costs more than the better of them, and may mix
them. All terms are one batched product in either.
"""

import math
from collections.abc import Sequence

from compress.recurrent.contraction import Order
from compress.recurrent.modes import Modes


def mode_by_mode(modes: Modes, rank: int) -> Order:
    """Each mode of the inputs turned into that of the outputs, one after the other: for large R.

    By way of R values where that is cheaper than the matrix A_i B_iᵀ, which is multiplied first.
    """
    order: list[tuple[str, ...]] = []
    for i, (n, m) in enumerate(zip(modes.inputs, modes.outputs, strict=True), 1):
        names = (f"in_{i}", f"out_{i}")
        order += [(name,) for name in names] if _is_thin(n, m, rank) else [names]
    return tuple(order)


def contract_then_expand(modes: Modes) -> Order:
    """All inputs contracted to R^d values, from which the outputs come: for small R.

    The longest mode of the inputs first, and the shortest of the outputs.
    """
    inputs = sorted(range(modes.order), key=lambda i: -modes.inputs[i])
    outputs = sorted(range(modes.order), key=lambda i: modes.outputs[i])
    return (*((f"in_{i + 1}",) for i in inputs), *((f"out_{i + 1}",) for i in outputs))


def mode_by_mode_macs(modes: Modes, terms: int, rank: int) -> int:
    """K * sum over i of m_1 ... m_(i-1) * min(m_i n_i, R (m_i + n_i)) * n_(i+1) ... n_d.

    The last product adds up the terms. With d = 1 they are one matrix, of which K is no factor.
    """
    total = 0
    for i, (n, m) in enumerate(zip(modes.inputs, modes.outputs, strict=True)):
        others = math.prod(modes.outputs[:i]) * math.prod(modes.inputs[i + 1 :])
        total += others * (rank * (n + m) if _is_thin(n, m, rank) else n * m)
    return terms * total


def contract_then_expand_macs(modes: Modes, terms: int, rank: int) -> int:
    """K * (sum over i of R^i n_i ... n_d + sum over i of R^(d-i+1) m_1 ... m_i).

    For the n_i from the longest to the shortest, and the m_i from the shortest to the longest.
    """
    falling, rising = sorted(modes.inputs, reverse=True), sorted(modes.outputs)
    return terms * (_contracting(falling, rank) + _contracting(rising[::-1], rank))


def _contracting(sizes: Sequence[int], rank: int) -> int:
    """Sum over i of R^i n_i ... n_d; expanding is the same, seen from its end."""
    return sum(rank ** (i + 1) * math.prod(sizes[i:]) for i in range(len(sizes)))


def _is_thin(n: int, m: int, rank: int) -> bool:
    return rank * (n + m) < n * m
