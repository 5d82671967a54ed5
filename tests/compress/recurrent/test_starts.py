import torch

from compress.recurrent.formats import network_of
from compress.recurrent.modes import Modes
from compress.recurrent.starts import started
from tests.compress.recurrent.matrices import matrix_of, projection_of
from tests.strategies import normal

MODES = Modes((2, 4), (3, 4))


def start_error(name, weight, ranks):
    """Squared, relative."""
    projection = projection_of(network_of(name, MODES, ranks))
    projection.load_state_dict(started(name, weight, MODES, ranks))
    error = (matrix_of(projection) - weight).square().sum() / weight.square().sum()
    return float(error.detach())


def test_each_block_term_takes_from_what_those_before_it_leave():
    weight = normal(0, 12, 8)
    errors = [start_error("block_term", weight, (terms, 3, 8)) for terms in (1, 2, 3)]
    assert errors[0] > 1.2 * errors[1] > 1.2**2 * errors[2]


def test_what_a_matrix_cannot_use_is_noise_in_one_factor_and_zeros_in_the_other():
    factors = started("kcp", normal(0, 12, 8), MODES, (1, 4))  # of a matrix (3, 2)
    inner, outer = factors["in_1"], factors["out_1"]
    assert (inner.shape, outer.shape) == ((1, 2, 4), (1, 3, 4))
    assert inner[..., 2:].abs().max() == 0
    assert outer[..., 2:].abs().min() > 0
    used = outer[..., :2].square().mean()
    assert 0.01 < float(outer[..., 2:].square().mean() / used) < 100


def test_a_node_above_thin_leaves_is_filled_up_too():
    modes = Modes((2, 2, 2), (2, 2, 2))
    factors = started("hierarchical_tucker", normal(0, 8, 8), modes, (2, 1, 1, 4))
    assert factors["transfer_1"].shape == (1, 1, 4)
    assert factors["transfer_1"].abs().min() > 0
    assert torch.equal(factors["transfer_0"][:, 1:], torch.zeros(2, 3, dtype=torch.float64))
