"""Which choices can hold whatever others can, so that the others must be faster to be of use."""

import math
import operator

from compress.plan import Choice

# Methods that hold what they hold at smaller ranks, and nothing of others: so many of the ranks
# bound something, those behind them are numbers of slices and must be the same.
FOLDED = {"kronecker": 1, "semi_tensor": 1, "hierarchical_tucker": 5}


def contains(larger: Choice, smaller: Choice) -> bool:
    """Whether every weight that `smaller` can hold, `larger` can hold as well.

    What is folded into modes holds what it holds at smaller ranks, and nothing of others.
    Each method but CP and block terms holds all kernels of bounded ranks: of the unfolding to
    outputs (svd, Tucker-2, train), to inputs (Tucker-2, train), and of (inputs, rows) by
    (outputs, columns) (spatial SVD, train).
    """
    if larger.modes is not None or smaller.modes is not None:
        return (larger.method, larger.modes) == (smaller.method, smaller.modes) and all(
            map(operator.le, smaller.ranks, larger.ranks)
        )
    if larger.method in FOLDED:
        count = FOLDED[larger.method]
        return (
            smaller.method == larger.method
            and smaller.ranks[count:] == larger.ranks[count:]
            and all(map(operator.le, smaller.ranks[:count], larger.ranks[:count]))
        )
    if larger.method in ("cp3", "cp4"):
        same = smaller.method in (larger.method, "cp4")
        return same and smaller.ranks[0] <= larger.ranks[0]
    if larger.method == "block_term":
        rank_out, rank_in, terms = larger.ranks
        return _blocks_needed(smaller, rank_out, rank_in) <= terms
    pairs = zip(_bounds(smaller), _bounds(larger), strict=True)
    return all(rank <= limit for rank, limit in pairs)


def _bounds(choice: Choice) -> tuple[float, float, float]:
    """What a choice bounds: the ranks to outputs, to inputs, and between the places."""
    outputs = inputs = places = math.inf
    match choice.method, choice.ranks:
        case "svd", (outputs,):
            pass
        case "spatial_svd", (places,):
            pass
        case "tucker2", (outputs, inputs):
            pass
        case "tensor_train", (inputs, places, outputs):
            pass
        case "cp3", (rank,):  # one factor over all places
            outputs = inputs = rank
        case "cp4", (rank,):
            outputs = inputs = places = rank
        case "block_term", (rank_out, rank_in, terms):
            outputs, inputs = terms * rank_out, terms * rank_in
    return outputs, inputs, places


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
