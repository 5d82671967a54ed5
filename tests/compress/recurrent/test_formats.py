import math

import numpy as np
import pytest
import torch

from compress.errors import CompressError, RankError
from compress.recurrent.formats import FORMATS, network_of, tree
from compress.recurrent.modes import Modes
from tests.compress.recurrent.matrices import matrix_of, projection_of

MODES = Modes((2, 3, 4), (3, 2, 5))
N, M = 24, 30
EXACT = {"rtol": 0, "atol": 1e-12}


@pytest.mark.parametrize(
    ("name", "ranks", "parameters"),
    [
        ("dense", (), M * N),
        ("svd", (5,), 5 * (M + N)),
        ("cp", (5,), 5 * (2 + 3 + 4 + 3 + 2 + 5)),
        ("tucker", (1, 2, 3, 3, 2, 4), 1 * 2 * 3 * 3 * 2 * 4 + 2 + 6 + 12 + 9 + 4 + 20),
        ("tensor_train", (2, 3, 4, 3, 2), 2 * 2 + 18 + 48 + 60 + 12 + 6),
        ("tensor_train_matrix", (4, 5), 6 * 4 + 4 * 6 * 5 + 5 * 20),
        ("tensor_ring", (2, 3, 2, 3, 2, 3), 6 * (2 + 3 + 4 + 5 + 2 + 3)),
        ("block_term", (2, 2, 3, 2), 2 * (12 + 12 + 18 + 40)),
        ("hierarchical_tucker", (2, 3, 4, 5), 12 + 18 + 80 + 10 + 60),
        ("kronecker", (3,), 3 * (6 + 6 + 20)),
        ("kcp", (3, 2), 3 * 2 * (2 + 3 + 4 + 3 + 2 + 5)),
    ],
)
def test_parameters_in_closed_form(name, ranks, parameters):
    network = network_of(name, MODES, ranks)
    assert network.parameters == parameters
    assert sum(p.numel() for p in projection_of(network).parameters()) == parameters


@pytest.mark.parametrize("name", ["kronecker", "kcp"])
def test_the_matrix_is_a_sum_of_kronecker_products(name):
    projection = projection_of(network_of(name, MODES, (2,) if name == "kronecker" else (2, 3)))
    found = np.zeros((M, N))
    for k in range(2):
        term = np.ones((1, 1))
        for i in (1, 2, 3):
            if name == "kronecker":
                factor = projection.get_parameter(f"factor_{i}")[k]
            else:
                inner, outer = (
                    projection.get_parameter(f"{side}_{i}")[k] for side in ("in", "out")
                )
                factor = outer @ inner.T
            term = np.kron(term, factor.detach().numpy())
        found += term
    torch.testing.assert_close(matrix_of(projection).detach(), torch.from_numpy(found), **EXACT)


def test_a_kcp_matrix_has_a_rank_far_above_its_own():
    modes = Modes((8, 8, 8), (8, 8, 8))
    projection = projection_of(network_of("kcp", modes, (1, 3)))
    assert sum(p.numel() for p in projection.parameters()) == 144
    assert torch.linalg.matrix_rank(matrix_of(projection).detach()) == 3**3


def test_58_982_400_entries_in_212_parameters():
    modes = Modes((8, 12, 20, 30), (16, 16, 2, 2))
    network = network_of("kcp", modes, (1, 2))
    assert (modes.in_features, modes.out_features) == (57_600, 1024)
    assert network.parameters == 212
    assert round(modes.in_features * modes.out_features / network.parameters) == 278_219


@pytest.mark.parametrize("name", FORMATS)
def test_ranks_at_their_limits_are_allowed_and_none_above(name):
    limits = FORMATS[name].limits(MODES)
    assert network_of(name, MODES, limits).sizes.keys() >= {"n1", "m3"}
    assert FORMATS[name].uniform(MODES, 10**9) == limits
    for i in range(len(limits)):
        with pytest.raises(RankError, match="were wanted"):
            network_of(name, MODES, (*limits[:i], limits[i] + 1, *limits[i + 1 :]))


def test_a_tree_parts_its_modes_in_the_middle():
    assert tree(2) == [(0, 2)]
    assert tree(5) == [(0, 5), (0, 2), (2, 5), (3, 5)]


def test_a_tree_of_one_mode_is_refused():
    with pytest.raises(RankError, match="two, for a tree"):
        network_of("hierarchical_tucker", Modes((6,), (4,)), (1,))


def test_a_format_that_does_not_exist_is_named():
    with pytest.raises(CompressError, match="no format 'tt'"):
        network_of("tt", MODES, (1,))


@pytest.mark.parametrize("name", FORMATS)
def test_entries_of_a_matrix_vary_as_glorot_has_it(name):
    modes = Modes((4, 4, 4), (4, 4, 4))
    ranks = (4, 2) if name == "kcp" else FORMATS[name].uniform(modes, 3)
    projection = projection_of(network_of(name, modes, ranks))
    energies = []
    for seed in range(100):
        projection.reset_parameters(torch.Generator().manual_seed(seed))
        energies.append(matrix_of(projection).square().mean().item())
    # Of 100 matrices, each a product of up to 9 normal factors: their energies vary widely.
    assert math.fsum(energies) / 100 == pytest.approx(2 / 128, rel=0.5)
