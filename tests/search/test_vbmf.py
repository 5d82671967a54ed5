import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.vbmf import _energy, _threshold, evbmf_rank


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
    ranks = set()
    for seed in range(20):  # in so much noise that the threshold counts
        matrix = planted(30, 120, rank=6, noise=1.2, seed=seed)
        ranks.add(evbmf_rank(matrix))
        assert evbmf_rank(matrix.T) == evbmf_rank(matrix)
        assert evbmf_rank((1e-3 * matrix).astype(np.float32)) == evbmf_rank(matrix)
    assert len(ranks) > 1


@pytest.mark.parametrize("alpha", [1.0, 0.3, 0.01])
def test_a_component_is_kept_from_where_it_lowers_the_energy(alpha):
    """The threshold by its meaning: there, keeping a component costs what dropping it does."""
    threshold = _threshold(alpha)
    below, above, far = (
        _energy(np.array([[threshold * by]]), alpha, threshold)[0]
        for by in (1 - 1e-9, 1 + 1e-9, 1.5)
    )
    assert above == pytest.approx(below, abs=1e-6)
    assert far < 1.5 * threshold - np.log(1.5 * threshold)


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
