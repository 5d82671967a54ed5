"""First factors of a matrix in each format, close to it in the plain norm: from SVDs, or from CP.

For the norm of the data they are a start; see `compress.recurrent.fit`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import torch
from torch import Tensor

from compress.decompose.als import Als
from compress.decompose.linalg import falling_eigenvectors
from compress.recurrent.formats import Ranks, chained, pairs, tree
from compress.recurrent.modes import Modes

Factors = dict[str, Tensor]  # by name, their axes as the format has them


def started(name: str, weight: Tensor, modes: Modes, ranks: Ranks) -> Factors:
    """Factors of (M, N), float64, in the format of that name.

    Terms and ranks that the matrix cannot use have zeros in one factor and noise in the others,
    so that a fit may use them.

    Raises:
        DegenerateError: the terms of `cp`, `kronecker` or `kcp` grow to cancel each other.
    """
    return STARTS[name](weight, modes, ranks)


def _dense(weight: Tensor, modes: Modes, _: Ranks) -> Factors:
    return {"weight": weight.reshape(*modes.outputs, *modes.inputs)}


def _svd(weight: Tensor, modes: Modes, ranks: Ranks) -> Factors:
    left, right = _split(weight, ranks[0])
    return {
        "in_factor": right.reshape(-1, *modes.inputs),
        "out_factor": left.reshape(*modes.outputs, -1),
    }


def _cp(weight: Tensor, modes: Modes, ranks: Ranks) -> Factors:
    names = [f"factor_n{i + 1}" for i in range(modes.order)]
    names += [f"factor_m{i + 1}" for i in reversed(range(modes.order))]
    return dict(zip(names, _terms(_chained(weight, modes), ranks[0]), strict=True))


def _tucker(weight: Tensor, modes: Modes, ranks: Ranks) -> Factors:
    sizes = modes.inputs + modes.outputs
    core = weight.T.reshape(sizes)
    core, bases = _compressed(core, ranks)
    d = modes.order
    names = [f"factor_{side}{i + 1}" for side in "nm" for i in range(d)]
    return {"core": core, **dict(zip(names, bases, strict=True))}


def _tensor_train(weight: Tensor, modes: Modes, ranks: Ranks) -> Factors:
    first, *inner, last = _ring(_chained(weight, modes), (1, *ranks))
    return _cores([first[0], *inner, last[..., 0]])


def _tensor_train_matrix(weight: Tensor, modes: Modes, ranks: Ranks) -> Factors:
    cores = _ring(_paired(weight, modes), (1, *ranks))
    sides = zip(cores, modes.inputs, modes.outputs, strict=True)
    cores = [core.reshape(len(core), n, m, core.shape[-1]) for core, n, m in sides]
    cores[0] = cores[0][0]
    cores[-1] = cores[-1][..., 0]
    return _cores(cores)


def _tensor_ring(weight: Tensor, modes: Modes, ranks: Ranks) -> Factors:
    return _cores(_ring(_chained(weight, modes), ranks))


def _cores(cores: list[Tensor]) -> Factors:
    return {f"core_{i}": core for i, core in enumerate(cores, 1)}


def _block_term(weight: Tensor, modes: Modes, ranks: Ranks) -> Factors:
    """Each term takes what those before it leave."""
    terms, *sizes = ranks
    rest, found = _paired(weight, modes), list[list[Tensor]]()
    for _ in range(terms):
        core, bases = _compressed(rest, tuple(sizes))
        found.append([core, *bases])
        rest = rest - _expanded(core, bases)
    core, *factors = (torch.stack(parts) for parts in zip(*found, strict=True))
    return {"core": core} | {
        f"factor_{i}": factor.reshape(terms, n, m, -1)
        for i, (factor, n, m) in enumerate(
            zip(factors, modes.inputs, modes.outputs, strict=True), 1
        )
    }


def _hierarchical_tucker(weight: Tensor, modes: Modes, ranks: Ranks) -> Factors:
    """From the leaves to the root, each node spans what its modes need most."""
    core, bases = _compressed(_paired(weight, modes), ranks[: modes.order])
    spans = tree(modes.order)
    wanted = dict(zip(spans[1:], ranks[modes.order :], strict=True))
    at = {(i, i + 1): i for i in range(modes.order)}  # axis of the core that holds these modes
    factors: Factors = {
        f"leaf_{i}": basis.reshape(n, m, -1)
        for i, (basis, n, m) in enumerate(zip(bases, modes.inputs, modes.outputs, strict=True), 1)
    }
    for i, (begin, end) in reversed([*enumerate(spans)]):
        middle = (begin + end) // 2
        axis = at.pop((begin, middle))
        both = core.shape[axis : axis + 2]
        core = core.flatten(axis, axis + 1)
        if i:
            rank = wanted[begin, end]
            basis = _basis(core, axis, rank)
            core = torch.tensordot(core, basis, ([axis], [0])).movedim(-1, axis)
            core = _padded(core, axis, rank)
            factors[f"transfer_{i}"] = _filled(basis, rank).reshape(*both, rank)
        else:
            factors["transfer_0"] = core.reshape(both)
        del at[middle, end]
        at = {span: other - (other > axis) for span, other in at.items()} | {(begin, end): axis}
    return factors


def _kronecker(weight: Tensor, modes: Modes, ranks: Ranks) -> Factors:
    """Van Loan and Pitsianis, "Approximation with Kronecker Products", 1993, for two modes."""
    return {f"factor_{i}": term for i, term in enumerate(_matrices(weight, modes, ranks[0]), 1)}


def _kcp(weight: Tensor, modes: Modes, ranks: Ranks) -> Factors:
    terms, rank = ranks
    factors: Factors = {}
    for i, matrices in enumerate(_matrices(weight, modes, terms), 1):
        outer, inner = zip(*(_split(matrix, rank) for matrix in matrices), strict=True)
        factors[f"in_{i}"] = torch.stack([part.T for part in inner])
        factors[f"out_{i}"] = torch.stack(outer)
    return factors


def _matrices(weight: Tensor, modes: Modes, terms: int) -> Iterator[Tensor]:
    """(k, m_i, n_i) of a sum of Kronecker products."""
    factors = _terms(_paired(weight, modes), terms)
    for factor, n, m in zip(factors, modes.inputs, modes.outputs, strict=True):
        yield factor.T.reshape(terms, n, m).transpose(1, 2)


def _paired(weight: Tensor, modes: Modes) -> Tensor:
    """(n_1 m_1, ..., n_d m_d)"""
    d = modes.order
    axes = [axis for i in range(d) for axis in (d + i, i)]
    return weight.reshape(*modes.outputs, *modes.inputs).permute(axes).reshape(pairs(modes))


def _chained(weight: Tensor, modes: Modes) -> Tensor:
    """(n_1, ..., n_d, m_d, ..., m_1)"""
    d = modes.order
    axes = [*range(d, 2 * d), *reversed(range(d))]
    return weight.reshape(*modes.outputs, *modes.inputs).permute(axes).reshape(chained(modes))


def _terms(tensor: Tensor, count: int) -> list[Tensor]:
    """(size of the mode, count) for each mode: their outer products are added up."""
    if tensor.ndim == 1:
        return [tensor[:, None]]
    if tensor.ndim == 2:
        left, right = _split(tensor, count)
        return [left, right.T]
    if not tensor.any():
        return [tensor.new_zeros(size, count) for size in tensor.shape]
    return Als(tensor).fit(count).factors


def _ring(tensor: Tensor, ranks: Ranks) -> list[Tensor]:
    """Cores (r_i, size of the mode, r_i+1), the last of which ends with r_1; a train if that is 1.

    One SVD after the other (Zhao et al., 2016, section 3.1).
    """
    closing, *others = ranks
    cores = list[Tensor]()
    rest = tensor.reshape(1, -1)
    left = 1
    for i, (size, rank) in enumerate(zip(tensor.shape[:-1], others, strict=True)):
        kept = rank if i else closing * rank
        basis, rest = _split(rest.reshape(left * size, -1), kept)
        if i:
            cores.append(basis.reshape(left, size, rank))
        else:
            cores.append(basis.reshape(size, closing, rank).transpose(0, 1))
            rest = rest.reshape(closing, rank, -1).permute(1, 2, 0)
        left = rank
    cores.append(rest.reshape(left, tensor.shape[-1], closing))
    return cores


def _compressed(tensor: Tensor, ranks: Ranks) -> tuple[Tensor, list[Tensor]]:
    """Core and bases (size, rank): the truncated HOSVD (De Lathauwer et al., 2000)."""
    bases = [_basis(tensor, mode, rank) for mode, rank in enumerate(ranks)]
    for basis in bases:
        tensor = torch.tensordot(tensor, basis, ([0], [0]))  # the next mode comes up
    return tensor, bases


def _expanded(core: Tensor, bases: list[Tensor]) -> Tensor:
    for basis in bases:
        core = torch.tensordot(core, basis, ([0], [1]))
    return core


def _basis(tensor: Tensor, mode: int, rank: int) -> Tensor:
    """(size of the mode, rank), orthonormal columns: what the tensor needs most of the mode."""
    matrix = tensor.movedim(mode, 0).reshape(tensor.shape[mode], -1)
    return falling_eigenvectors(matrix @ matrix.T)[1][:, :rank]


def _split(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(M, R) and (R, N), each with the root of the singular values."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    shared = values[:rank].sqrt()
    return _filled(left[:, :rank] * shared, rank), _padded(shared[:, None] * right[:rank], 0, rank)


def _filled(factor: Tensor, rank: int) -> Tensor:
    """With columns of noise, as large as those it has on average."""
    rows, columns = factor.shape
    noise = torch.randn(rows, rank - columns, generator=torch.Generator().manual_seed(0))
    return torch.cat([factor, noise.to(factor) * factor.square().mean().sqrt()], 1)


def _padded(tensor: Tensor, axis: int, size: int) -> Tensor:
    """With zeros along an axis."""
    zeros = list(tensor.shape)
    zeros[axis] = size - zeros[axis]
    return torch.cat([tensor, tensor.new_zeros(zeros)], axis)


STARTS: Final[Mapping[str, Callable[[Tensor, Modes, Ranks], Factors]]] = {
    "dense": _dense,
    "svd": _svd,
    "cp": _cp,
    "tucker": _tucker,
    "tensor_train": _tensor_train,
    "tensor_train_matrix": _tensor_train_matrix,
    "tensor_ring": _tensor_ring,
    "block_term": _block_term,
    "hierarchical_tucker": _hierarchical_tucker,
    "kronecker": _kronecker,
    "kcp": _kcp,
}
