"""Which choices can hold whatever others can, so that the others must be faster to be of use."""

import math

from compress.plan import Choice


def contains(larger: Choice, smaller: Choice) -> bool:
    """Whether every weight that `smaller` can hold, `larger` can hold as well.

    Each method but CP and block terms holds all kernels of bounded ranks: of the unfolding to
    outputs (svd, Tucker-2, train), to inputs (Tucker-2, train), and of (inputs, rows) by
    (outputs, columns) (spatial SVD, train).
    """
    outputs, inputs, places = _bounds(smaller)
    match larger.method, larger.ranks:
        case "svd", (rank,):
            return outputs <= rank
        case "tucker2", (rank_out, rank_in):
            return outputs <= rank_out and inputs <= rank_in
        case "spatial_svd", (rank,):
            return places <= rank
        case "tensor_train", (rank_in, rank, rank_out):
            return inputs <= rank_in and places <= rank and outputs <= rank_out
        case "cp3", (rank,):
            return smaller.method in ("cp3", "cp4") and smaller.ranks[0] <= rank
        case "cp4", (rank,):
            return smaller.method == "cp4" and smaller.ranks[0] <= rank
        case "block_term", (rank_out, rank_in, terms):
            return _blocks_needed(smaller, rank_out, rank_in) <= terms
    return False


def _bounds(choice: Choice) -> tuple[float, float, float]:
    """What a choice bounds: the ranks to outputs, to inputs, and between the places."""
    match choice.method, choice.ranks:
        case "svd", (rank,):
            return rank, math.inf, math.inf
        case "tucker2", (rank_out, rank_in):
            return rank_out, rank_in, math.inf
        case "spatial_svd", (rank,):
            return math.inf, math.inf, rank
        case "tensor_train", (rank_in, rank, rank_out):
            return rank_out, rank_in, rank
        case "cp4", (rank,):
            return rank, rank, rank
        case "block_term", (rank_out, rank_in, terms):
            return terms * rank_out, terms * rank_in, math.inf
    return choice.ranks[0], choice.ranks[0], math.inf  # cp3: one factor over all places


def _blocks_needed(choice: Choice, rank_out: int, rank_in: int) -> float:
    """Tucker-2 terms of these ranks that surely hold whatever the choice can hold.

    A kernel of bounded ranks is one Tucker-2, whose core is cut into blocks; a sum of smaller
    terms can also be gathered, several terms to a block.
    """
    outputs, inputs, _ = _bounds(choice)
    cut = _ceil(outputs / rank_out) * _ceil(inputs / rank_in)
    match choice.method, choice.ranks:
        case "cp3" | "cp4", (terms,):
            gathered = _ceil(terms / min(rank_out, rank_in))
        case "block_term", (own_out, own_in, terms) if own_out <= rank_out and own_in <= rank_in:
            gathered = _ceil(terms / min(rank_out // own_out, rank_in // own_in))
        case "block_term", (own_out, own_in, terms):
            gathered = terms * _ceil(own_out / rank_out) * _ceil(own_in / rank_in)
        case _:
            gathered = math.inf
    return min(cut, gathered)


def _ceil(number: float) -> float:
    return number if math.isinf(number) else math.ceil(number)
