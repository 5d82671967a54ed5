"""Which choices can hold whatever others can, so that the others must be faster to be of use."""

import math

from compress.plan import Choice


def contains(larger: Choice, smaller: Choice) -> bool:
    """Whether every weight that `smaller` can hold, `larger` can hold as well.

    Each method bounds some ranks of the kernel: of its unfolding to outputs (svd, Tucker-2, CP),
    to inputs (Tucker-2, CP), and of (inputs, rows) by (outputs, columns) (spatial SVD, CP-4).
    """
    outputs, inputs, places = _bounds(smaller)
    match larger.method, larger.ranks:
        case "svd", (rank,):
            return outputs <= rank
        case "tucker2", (rank_out, rank_in):
            return outputs <= rank_out and inputs <= rank_in
        case "spatial_svd", (rank,):
            return places <= rank
        case "cp3", (rank,):
            return smaller.method in ("cp3", "cp4") and smaller.ranks[0] <= rank
        case "cp4", (rank,):
            return smaller.method == "cp4" and smaller.ranks[0] <= rank
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
        case "cp4", (rank,):
            return rank, rank, rank
    return choice.ranks[0], choice.ranks[0], math.inf  # cp3: one factor over all places
