"""What a decomposition needs at its peak, in closed form: known before anything is begun.

Counted in values of 8 bytes, as everything is computed in float64; the terms follow the tensors
that live at once. An estimate from above: LAPACK's workspaces are rounded up.
"""

import math

from torch import Tensor

from compress.kernels import kernel_size
from compress.methods.groups import group_shape, groups_of
from compress.methods.method import Ranks
from compress.metric import Metric
from compress.recurrent.network import TensorNetwork
from compress.shape import LayerShape, WeightShape

VALUE_BYTES = 8
EIGH = 5  # matrices of its size that an eigendecomposition holds, its input among them


def moment_bytes(shape: LayerShape) -> int:
    """Peak while the second moment of a layer's inputs is collected, of each group by itself:
    the sum, a product, and the symmetric average."""
    _, *inputs = kernel_size(shape)
    return VALUE_BYTES * 3 * groups_of(shape) * math.prod(inputs) ** 2


def mode_bytes(shape: LayerShape, *, diagonal: bool = False) -> int:
    """As `moment_bytes`, of the channels and of each axis in space in place of whole patches."""
    _, channels, *axes = kernel_size(shape)
    values = sum(size**2 for size in axes) + (channels if diagonal else channels**2)
    return VALUE_BYTES * 3 * groups_of(shape) * values


def gradient_bytes(shape: LayerShape) -> int:
    """As `moment_bytes`, of the gradients at a layer's outputs."""
    groups = groups_of(shape)
    return VALUE_BYTES * 3 * groups * (kernel_size(shape)[0] // groups) ** 2


def coordinate_bytes(shape: LayerShape, metric: Metric | Tensor | None) -> int:
    """What a metric takes besides its second moment of whole patches: each of its other moments
    with a shifted copy and the root, and the kernel entering its coordinates."""
    moments = Metric.of(metric).mode_moments
    if not moments:
        return 0
    kernel = math.prod(kernel_size(shape))
    return VALUE_BYTES * (3 * sum(map(Tensor.numel, moments.values())) + 3 * kernel)


def fit_bytes(shape: WeightShape, network: TensorNetwork, most: int) -> int:
    """Peak of fitting a tensor network to a weight: whitened inputs and outputs, the data between
    two factors with their gradients, and what L-BFGS remembers.

    Args:
        shape: of the weight.
        network: that stands in for it.
        most: values of one vector between two factors, at most.
    """
    inputs, outputs = shape.in_features, shape.out_features
    data = inputs * (2 * inputs + 4 * outputs + 4 * most)
    return VALUE_BYTES * (data + EIGH * inputs**2 + 3 * inputs * outputs + 24 * network.parameters)


def peak_bytes(shape: LayerShape, method: str, ranks: Ranks, *, data_aware: bool) -> int:
    """Peak of decomposing a layer at these ranks, its float64 weight and moment among it.

    Args:
        shape: of the layer.
        method: its name; one that is not known here is taken for Tucker-2 at its greatest rank,
            as is tensor_train, which is fitted by the same steps.
        ranks: that the method allows for the shape.
        data_aware: in the norm of the second moment of the layer's inputs.
    """
    outputs, inputs, *size = kernel_size(group_shape(shape))  # one group at a time
    places, width = math.prod(size), math.prod(size[1:])  # spatial_svd parts the first axis
    patch = inputs * places
    weight, moment = outputs * patch, patch**2 if data_aware else 0
    if method == "svd":
        values = 4 * weight + EIGH * min(outputs, patch) ** 2 + moment
    elif method == "spatial_svd":
        values = _two_sided(outputs, patch // width, width, ranks[0], data_aware=data_aware)
    elif method in ("kronecker", "semi_tensor"):
        terms, out, into = ranks if method == "kronecker" else (ranks[0], 1, ranks[1])
        sizes = outputs // out, out * patch // into, into
        # The fits of two foldings are kept; the metric is rearranged.
        values = 2 * (moment + _two_sided(*sizes, terms, data_aware=data_aware))
    elif method == "hierarchical_tucker":
        _, *leaves = ranks
        within_out, within_in = math.prod(leaves[:2]), math.prod(leaves[2:])
        values = 6 * weight + EIGH * (within_out**2 + within_in**2) + 5 * moment
    elif method in ("cp3", "cp4"):
        terms, most = ranks[0], places * min(outputs, inputs)
        start = 2 * (outputs + inputs) * most
        values = 5 * weight + start + 3 * patch * terms + 8 * terms**2 + 8 * outputs * terms
        if data_aware:
            values += 6 * weight + start + moment + 5 * patch * terms + 2 * inputs**2
    else:
        rank = _widest(method, ranks)
        values = 5 * weight + EIGH * (outputs**2 + inputs**2)
        if data_aware:
            values += EIGH * inputs**2 + _reduction(weight, patch, inputs, rank, places)
    # Whether a moment is finite is asked of its absolute values.
    largest = max(values, 3 * weight + 5 * moment // 2)
    return VALUE_BYTES * (largest + (groups_of(shape) - 1) * (weight + moment))


def _widest(method: str, ranks: Ranks) -> int:
    """The input rank of the Tucker-2 that holds what is alive at once."""
    if method == "tucker2":
        return ranks[1]
    if method == "block_term":  # all terms side by side
        return max(ranks[:2]) * ranks[2]
    return max(ranks)


def _two_sided(outputs: int, rows: int, width: int, rank: int, *, data_aware: bool) -> int:
    """Values that `compress.decompose.spatial_svd` holds for a weight (O, rows, width)."""
    weight, columns = outputs * rows * width, outputs * width
    values = 5 * weight + EIGH * min(rows, columns) ** 2
    if data_aware:
        paying = rows * columns // (rows + columns)
        span = paying if rank <= paying else min(rows, columns)
        values += EIGH * rows**2 + _reduction(weight, rows * width, span, rank, width)
    return values


def _reduction(weight: int, patch: int, span: int, rank: int, places: int) -> int:
    """Values that `compress.decompose.reduction` holds for the rank, with its moment."""
    nested, size = span * places, rank * places
    setting_up = 2 * nested * patch + 2 * nested**2
    alternating = 6 * size * patch + 4 * size**2
    return patch**2 + 2 * nested**2 + 9 * weight + max(setting_up, alternating)
