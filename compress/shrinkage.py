"""Second moments of few samples, drawn towards equal variances.

Chen, Wiesel, Eldar and Hero, "Shrinkage Algorithms for MMSE Covariance Estimation", 2010: the
oracle approximating shrinkage. Patches of one image overlap, so they are no independent samples
as the paper has them; counted as such all the same they gave the least error on unseen images.
To count images instead shrinks far too much, and the spread between images (Ledoit and Wolf,
"A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices", 2004) somewhat too much:
the variances of inputs fall over many decades, and the least ones are those that can be left out.
"""

from torch import Tensor


def shrunk(second: Tensor, count: int) -> Tensor:
    """(1 - a) S + a (tr S / D) I, with the share a from the data; none of it for many samples.

    Args:
        second: S (D, D), the mean of x x^T, or (G, D, D), each with a share of its own.
        count: of the samples.
    """
    share = shrinkage(second, count)[..., None]
    shrunk = second * (1 - share[..., None])
    diagonal = shrunk.diagonal(dim1=-2, dim2=-1)
    diagonal += share * second.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
    return shrunk


def shrinkage(second: Tensor, count: int) -> Tensor:
    """The share a in [0, 1] of `shrunk`: (), or (G,).  (eq. 23)

    1 where S has nothing but its mean variance.
    """
    size = second.shape[-1]
    squares = second.square().sum((-2, -1))
    square_trace = second.diagonal(dim1=-2, dim2=-1).sum(-1).square()
    spread = squares - square_trace / size  # zero of equal variances, but for round-off
    share = ((1 - 2 / size) * squares + square_trace) / (count + 1 - 2 / size)
    return (share / spread.clamp_min(0)).nan_to_num(1.0, 1.0).clamp(0, 1)
