import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.shrinkage import shrinkage, shrunk
from tests.strategies import SEEDS, normal, second_moment


def of_samples(seed, count, size=6):
    spread = torch.logspace(0, -1, size, dtype=torch.float64)
    return second_moment(normal(seed, count, size) * spread)


@settings(deadline=None)
@given(seed=SEEDS, count=st.integers(1, 50))
def test_the_trace_stays_and_the_eigenvalues_draw_together(seed, count):
    second = of_samples(seed, count)
    found = shrunk(second, count)
    torch.testing.assert_close(found.trace(), second.trace())
    before, after = torch.linalg.eigvalsh(second), torch.linalg.eigvalsh(found)
    share = float(shrinkage(second, count))
    assert 0 < share <= 1
    torch.testing.assert_close(after, (1 - share) * before + share * before.mean())


def test_many_samples_are_left_as_they_are():
    second = of_samples(0, 1000)
    assert float(shrinkage(second, 10**9)) < 1e-8
    torch.testing.assert_close(shrunk(second, 10**12), second, rtol=1e-11, atol=1e-11)


def test_a_single_sample_says_little_but_the_mean_variance():
    second = of_samples(0, 1)
    expected = torch.eye(6, dtype=torch.float64) * second.trace() / 6
    torch.testing.assert_close(shrunk(second, 1), expected)


@pytest.mark.parametrize("count", [4, 8, 16])
def test_the_shrunk_moment_is_nearer_to_the_truth(count):
    """The share is meant to be the best one: no other does much better on average."""
    truth = torch.diag(torch.logspace(0, -2, 6, dtype=torch.float64))  # squares of the deviations
    errors = {"shrunk": 0.0, **dict.fromkeys((0.0, 0.2, 0.4, 0.6, 0.8, 1.0), 0.0)}
    for seed in range(200):
        second = of_samples(seed, count)
        target = torch.eye(6, dtype=torch.float64) * second.trace() / 6
        for share in errors:
            found = shrunk(second, count) if share == "shrunk" else second.lerp(target, share)
            errors[share] += float((found - truth).square().sum())
    best = min(error for share, error in errors.items() if share != "shrunk")
    assert errors["shrunk"] < errors[0.0]
    assert errors["shrunk"] < 1.25 * best


def test_each_group_has_a_share_of_its_own():
    seconds = torch.stack([of_samples(0, 5), torch.eye(6, dtype=torch.float64)])
    found = shrunk(seconds, 5)
    torch.testing.assert_close(found[0], shrunk(seconds[0], 5))
    torch.testing.assert_close(found[1], seconds[1])
    assert shrinkage(seconds, 5).tolist()[1] == 1


def test_zeros_and_a_single_variance_stay_as_they_are():
    zeros, single = torch.zeros(3, 3, dtype=torch.float64), torch.full((1, 1), 2.0)
    assert torch.equal(shrunk(zeros, 4), zeros)
    torch.testing.assert_close(shrunk(single, 4), single)
