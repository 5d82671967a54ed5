import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.vbmf import evbmf_rank


def planted(rows: int, columns: int, rank: int, noise: float, seed: int) -> np.ndarray:
    """A matrix of some rank, its entries of variance 1, in noise."""
    rng = np.random.default_rng(seed)
    low = rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, columns)) / max(1, rank) ** 0.5
    return low + noise * rng.normal(size=(rows, columns))


@settings(max_examples=25, deadline=None)
@given(
    rank=st.integers(1, 10),
    rows=st.sampled_from([48, 80, 128]),
    noise=st.sampled_from([1e-3, 0.03, 0.2]),
    seed=st.integers(0, 2**16),
)
def test_a_planted_rank_is_found_in_its_noise(rank, rows, noise, seed):
    assert evbmf_rank(planted(rows, 96, rank, noise, seed)) == rank


@pytest.mark.parametrize("shape", [(40, 40), (64, 576), (300, 30)])
@pytest.mark.parametrize("noise", [1e-6, 1.0, 1e4])
def test_pure_noise_has_no_rank(shape, noise):
    for seed in range(5):
        assert evbmf_rank(planted(*shape, rank=0, noise=noise, seed=seed)) == 0


def test_a_rank_without_noise_is_the_rank():
    assert evbmf_rank(planted(50, 80, rank=7, noise=0.0, seed=1)) == 7


def test_a_matrix_has_the_rank_of_its_transpose_and_of_its_multiples():
    matrix = planted(60, 90, rank=6, noise=0.4, seed=2)
    found = evbmf_rank(matrix)
    assert 0 < found <= 6
    assert evbmf_rank(matrix.T) == found
    assert evbmf_rank((1e-3 * matrix).astype(np.float32)) == found


def test_a_component_at_the_edge_of_the_noise_is_not_kept():
    """Random matrix theory: below (L M)^(1/4) sigma a component leaves no trace."""
    rng = np.random.default_rng(3)
    rows, columns = 100, 200
    noise = rng.normal(size=(rows, columns))
    left, right = (rng.normal(size=n) for n in (rows, columns))
    component = np.outer(left / np.linalg.norm(left), right / np.linalg.norm(right))
    edge = (rows * columns) ** 0.25
    assert evbmf_rank(noise + 0.8 * edge * component) == 0
    assert evbmf_rank(noise + 3.0 * edge * component) == 1


def test_zeros_have_no_rank():
    assert evbmf_rank(np.zeros((5, 9))) == 0
    assert evbmf_rank(np.zeros((0, 3))) == 0
