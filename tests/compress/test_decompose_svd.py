import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.decompose.svd import ChannelSvd
from compress.errors import CompressError, RankError, WeightsError
from tests.strategies import SEEDS, inputs_of, kernels, normal, sampled_error, second_moment

# The energies come from a Gram matrix in float64: 1e-16 of the largest, times a few dozen rows.
ROUND_OFF = 1e-12


def product(svd, rank):
    in_factor, out_factor = svd.factors((rank,))
    return out_factor @ in_factor.flatten(1)


def full_rank(weight):
    return min(len(weight), weight[0].numel())


@settings(deadline=None, max_examples=50)
@given(weight=kernels())
def test_the_plain_error_is_that_of_the_singular_values_cut(weight):
    svd = ChannelSvd(weight)
    values = torch.linalg.svdvals(weight.flatten(1)).square()
    for rank in range(1, full_rank(weight) + 1):
        error = (product(svd, rank) - weight.flatten(1)).square().sum()
        assert float(error) == pytest.approx(float(values[rank:].sum()), abs=ROUND_OFF * 100)


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_the_error_predicted_is_the_error_measured_at_every_rank(data):
    weight = data.draw(kernels())
    samples = data.draw(inputs_of(weight))
    svd = ChannelSvd(weight, second_moment(samples))
    if not float((samples @ weight.flatten(1).T).square().sum()) > 0:
        return
    assert len(svd.errors) == full_rank(weight) + 1
    assert float(svd.errors[0]) == pytest.approx(1)
    for rank in range(1, full_rank(weight) + 1):
        measured = sampled_error(weight, product(svd, rank), samples)
        assert float(svd.errors[rank]) == pytest.approx(measured, abs=ROUND_OFF)


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_no_other_weight_of_the_rank_loses_less_on_the_data(data):
    weight = data.draw(kernels())
    samples = data.draw(inputs_of(weight))
    svd = ChannelSvd(weight, second_moment(samples))
    values = torch.linalg.svdvals(samples @ weight.flatten(1).T).square()  # Eckart and Young
    cut = torch.stack([values[rank:].sum() for rank in range(len(svd.errors))])
    if values.sum() > 0:
        torch.testing.assert_close(svd.errors, cut / values.sum(), rtol=0, atol=ROUND_OFF)


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_full_rank_is_exact_whatever_the_data_excite(data):
    weight = data.draw(kernels())
    samples = data.draw(inputs_of(weight))
    for metric in (None, second_moment(samples), torch.zeros(samples.shape[1], samples.shape[1])):
        found = product(ChannelSvd(weight, metric), full_rank(weight))
        torch.testing.assert_close(found, weight.flatten(1), rtol=0, atol=1e-9)


def test_lower_ranks_are_the_first_terms_of_higher_ones():
    svd = ChannelSvd(normal(0, 6, 4, 3, 3), second_moment(normal(1, 50, 36)))
    (in_two, out_two), (in_five, out_five) = svd.factors((2,)), svd.factors((5,))
    assert torch.equal(in_five[:2], in_two)
    assert torch.equal(out_five[:, :2], out_two)
    assert in_two.shape == (2, 4, 3, 3)


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS)
def test_outputs_that_the_data_never_excite_are_kept_by_their_weights(seed):
    weight, samples = normal(seed, 6, 7), normal(seed + 1, 2, 7)
    seen, _ = torch.linalg.qr(weight @ samples.T)  # two directions of output, the rest is unseen
    values = torch.linalg.svdvals(weight - seen @ seen.T @ weight).square()
    svd = ChannelSvd(weight, second_moment(samples))
    for rank in range(2, 7):
        left = (product(svd, rank) - weight).square().sum()
        assert float(left) == pytest.approx(float(values[rank - 2 :].sum()), abs=1e-6)


def test_a_layer_of_zeros_becomes_factors_of_zeros():
    svd = ChannelSvd(torch.zeros(4, 3, 2, 2), second_moment(normal(0, 30, 12)))
    assert not product(svd, 2).any()
    assert not svd.errors.any()


@pytest.mark.parametrize("rank", [0, 5])
def test_a_rank_outside_its_bounds_is_refused(rank):
    with pytest.raises(RankError, match=r"between 1 and \(4,\)"):
        ChannelSvd(normal(0, 9, 4)).factors((rank,))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(value):
    weight, metric = normal(0, 3, 2), torch.eye(2, dtype=torch.float64)
    with pytest.raises(WeightsError, match=r"shape \(3, 2\)"):
        ChannelSvd(torch.full_like(weight, value))
    with pytest.raises(CompressError, match="second moment"):
        ChannelSvd(weight, metric * value)


def test_a_metric_of_another_size_is_refused_with_both_sizes():
    with pytest.raises(CompressError, match=r"\(4, 4\) came .* \(3, 2\); \(2, 2\) was wanted"):
        ChannelSvd(normal(0, 3, 2), torch.eye(4))
