"""Sums of outer products: a factor for each mode, and in each a column for every term.

Kolda and Bader, "Tensor Decompositions and Applications", 2009.
"""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

Factors = list[Tensor]  # (o, r), (i, r), then one for each axis of places


def khatri_rao(factors: Sequence[Tensor]) -> Tensor:
    """The columns' Kronecker products, (product of the sizes, r)."""
    product = factors[0]
    for factor in factors[1:]:
        product = (product[:, None] * factor).flatten(0, 1)
    return product


def grams_of(factors: Sequence[Tensor]) -> list[Tensor]:
    """Inner products (r, r) of the columns of each factor."""
    return [factor.T @ factor for factor in factors]


def product(grams: Sequence[Tensor]) -> Tensor:
    """Inner products (r, r) of the columns of the Khatri-Rao product, from those of its factors."""
    return reduce(torch.mul, grams)


def energy(factors: Sequence[Tensor]) -> float:
    """The sum of the terms' own energies: that of the tensor where they are orthogonal."""
    squares = [factor.double().square().sum(0) for factor in factors]
    return float(product(squares).sum())


def balanced(factors: Sequence[Tensor]) -> Factors:
    """Each term spread evenly over the factors; a term of zero stays zero."""
    norms = torch.stack([factor.norm(dim=0) for factor in factors])
    share = norms.prod(0) ** (1 / len(factors))
    tiny = torch.finfo(norms.dtype).tiny
    scales = share / norms.clamp_min(tiny)
    return [factor * scale for factor, scale in zip(factors, scales, strict=True)]
