import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorly.decomposition import tensor_train as tensorly_train

from compress.decompose import tensor_train
from compress.decompose.tensor_train import TensorTrain, train_limits
from compress.equivalent import relative_error
from compress.errors import RankError
from tests.strategies import SEEDS, inputs_of, kernels, normal, second_moment

# Float64 round-off, and what the ridge of the fits may leave.
ROUND_OFF = 1e-9


def product(decomposition, ranks):
    return torch.einsum("qi,rqh,prw,op->oihw", *decomposition.factors(ranks))


def ranks_of(weight):
    return st.tuples(*(st.integers(1, limit) for limit in train_limits(*weight.shape)))


def cuts(weight, ranks):
    """Squared error of the best kernel of each rank, unfolding by unfolding."""
    chain = weight.permute(1, 2, 3, 0)  # (i, h, w, o)
    unfoldings = (chain.flatten(1), chain.flatten(2).flatten(0, 1), chain.flatten(0, 2))
    return [
        float(torch.linalg.svdvals(unfolding)[rank:].square().sum())
        for unfolding, rank in zip(unfoldings, ranks, strict=True)
    ]


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_the_plain_error_stays_within_the_singular_values_cut(data):
    weight = data.draw(kernels())
    ranks = data.draw(ranks_of(weight))
    error = (product(TensorTrain(weight), ranks) - weight).square().sum()
    cut = cuts(weight, ranks)
    assert max(cut) - ROUND_OFF <= error <= sum(cut) + ROUND_OFF


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS, ranks=st.tuples(st.integers(1, 5), st.integers(1, 8), st.integers(1, 6)))
def test_the_plain_error_is_near_that_of_tensorly(seed, ranks):
    weight = normal(seed, 6, 5, 3, 2)
    chain = weight.permute(1, 2, 3, 0).numpy()
    parts = tensorly_train(chain, rank=[1, *ranks, 1])
    first, vertical, horizontal, last = map(torch.from_numpy, parts)
    theirs = torch.einsum(
        "iq,qhr,rwp,po->oihw", first.squeeze(0), vertical, horizontal, last.squeeze(2)
    )
    ours = product(TensorTrain(weight), ranks)
    # Both are within sqrt(3) of the optimum (Oseledets 2011); they cut in different orders.
    assert (ours - weight).norm() <= 3**0.5 * (theirs - weight).norm() + ROUND_OFF
    assert (theirs - weight).norm() <= 3**0.5 * (ours - weight).norm() + ROUND_OFF


def test_over_many_kernels_the_error_is_no_greater_than_that_of_tensorly():
    ratios = []
    for seed in range(20):
        weight = normal(seed, 8, 6, 3, 3) @ torch.diag(torch.tensor([4.0, 2.0, 1.0])).double()
        chain = weight.permute(1, 2, 3, 0).numpy()
        first, vertical, horizontal, last = map(
            torch.from_numpy, tensorly_train(chain, rank=[1, 4, 6, 5, 1])
        )
        theirs = torch.einsum(
            "iq,qhr,rwp,po->oihw", first.squeeze(0), vertical, horizontal, last.squeeze(2)
        )
        error = (product(TensorTrain(weight), (4, 6, 5)) - weight).norm()
        ratios.append(float(error / (theirs - weight).norm()))
    assert sum(ratios) / len(ratios) <= 1


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_the_plain_error_falls_with_each_rank(data):
    weight = data.draw(kernels())
    ranks = data.draw(ranks_of(weight))
    more = tuple(
        min(rank + data.draw(st.integers(0, 3)), limit)
        for rank, limit in zip(ranks, train_limits(*weight.shape), strict=True)
    )
    cuts_of = tensor_train._Cuts(weight)  # what the last cut, made anew, improves on
    errors = []
    for each in (more, ranks):
        train = cuts_of.cut(each)
        found = torch.einsum(
            "iq,qhr,prw,op->oihw", train.first, train.vertical, train.horizontal, train.last
        )
        errors.append(float((found - weight).square().sum()))
        improved = product(TensorTrain(weight), each)
        allowed = ROUND_OFF + 1e-6 * weight.square().sum()  # fits far from exact are in float32
        assert (improved - weight).square().sum() <= errors[-1] + allowed
    assert errors[0] <= errors[1] + ROUND_OFF


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_in_the_norm_of_the_data_it_is_never_worse_than_the_plain_one(data):
    weight = data.draw(kernels())
    metric = second_moment(data.draw(inputs_of(weight)))
    ranks = data.draw(ranks_of(weight))
    fitted, plain = (
        relative_error(weight, product(decomposition, ranks), metric)
        for decomposition in (TensorTrain(weight, metric), TensorTrain(weight))
    )
    assert fitted <= plain + ROUND_OFF


def test_on_correlated_inputs_it_is_far_better_than_the_plain_one():
    weight, metric = normal(0, 8, 6, 3, 3), second_moment(normal(1, 99, 9) @ normal(2, 9, 54))
    fitted, plain = (
        relative_error(weight, product(decomposition, (4, 6, 6)), metric)
        for decomposition in (TensorTrain(weight, metric), TensorTrain(weight))
    )
    assert fitted < 0.5 * plain


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS, rank=st.integers(1, 6))
def test_with_all_else_kept_it_is_the_best_weight_of_its_output_rank(seed, rank):
    weight, samples = normal(seed, 6, 4, 2, 3), normal(seed + 1, 50, 24) @ normal(seed, 24, 24)
    metric = second_moment(samples)
    found = product(TensorTrain(weight, metric), (4, 8, rank))
    values = torch.linalg.svdvals(samples @ weight.flatten(1).T).square()  # Eckart and Young
    assert relative_error(weight, found, metric) == pytest.approx(
        float(values[rank:].sum() / values.sum()), abs=ROUND_OFF
    )


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS, rank=st.integers(1, 8))
def test_where_rows_and_columns_are_uncorrelated_it_keeps_the_best_middle(seed, rank):
    weight = normal(seed, 6, 4, 2, 3)
    moments = [second_moment(normal(seed + n, 9, size)) for n, size in enumerate((4, 2, 3), 1)]
    white = torch.einsum("oihw,ij,hk,wl->jklo", weight, *map(torch.linalg.cholesky, moments))
    values = torch.linalg.svdvals(white.flatten(2).flatten(0, 1)).square()
    metric = torch.kron(torch.kron(moments[0], moments[1]), moments[2])
    error = relative_error(weight, product(TensorTrain(weight, metric), (4, rank, 6)), metric)
    assert error == pytest.approx(float(values[rank:].sum() / values.sum()), abs=ROUND_OFF)


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_full_rank_is_exact(data):
    weight = data.draw(kernels())
    samples = data.draw(inputs_of(weight))
    for metric in (None, second_moment(samples)):
        found = product(TensorTrain(weight, metric), train_limits(*weight.shape))
        torch.testing.assert_close(found, weight, rtol=0, atol=1e-6)


def test_no_sweep_raises_the_error(monkeypatch):
    weight, metric = normal(0, 8, 6, 3, 3), second_moment(normal(1, 60, 54) @ normal(2, 54, 54))
    errors = []
    for sweeps in range(4):
        monkeypatch.setattr(tensor_train, "SWEEPS", sweeps)
        found = product(TensorTrain(weight, metric), (3, 5, 4))
        errors.append(relative_error(weight, found, metric))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.99 * errors[0]


@pytest.mark.parametrize("part", ["first", "vertical"])
def test_a_sweep_fits_the_first_part_and_the_vertical_one(monkeypatch, part):
    weight, metric = normal(0, 8, 6, 3, 3), second_moment(normal(1, 60, 54) @ normal(2, 54, 54))
    ranks = (3, 9, 8)  # the vertical part holds all that the first one keeps
    if part == "vertical":
        ranks = (6, 5, 8)
        monkeypatch.setattr(TensorTrain, "_fit_first", lambda self, train: train)
    errors = []
    for sweeps in (0, 3):
        monkeypatch.setattr(tensor_train, "SWEEPS", sweeps)
        found = product(TensorTrain(weight, metric), ranks)
        errors.append(relative_error(weight, found, metric))
    assert errors[1] < 0.99 * errors[0]


def test_what_a_rank_is_over_its_neighbours_is_zero():
    weight, metric = normal(0, 8, 6, 3, 3), second_moment(normal(1, 99, 54))
    for used in (None, metric):
        train = TensorTrain(weight, used)
        first, vertical, horizontal, last = train.factors((2, 18, 8))
        assert not vertical[6:].any()  # two inputs of three rows fill six
        assert not horizontal[:, 6:].any()
        torch.testing.assert_close(product(train, (2, 18, 8)), product(train, (2, 6, 8)))
        assert (first.shape, last.shape) == ((2, 6), (8, 8))


def test_kernels_and_inputs_of_zeros_stay_finite():
    weight = normal(0, 4, 3, 2, 2)
    dead = second_moment(normal(1, 50, 12))
    dead[:4], dead[:, :4] = 0, 0  # nothing ever comes in through the first channel
    for kernel, metric in [
        (torch.zeros_like(weight), dead),
        (weight, torch.zeros(12, 12)),
        (weight, dead),
    ]:
        assert product(TensorTrain(kernel, metric), (2, 3, 2)).isfinite().all()
    assert not product(TensorTrain(torch.zeros_like(weight), dead), (2, 3, 2)).any()


@pytest.mark.parametrize("ranks", [(0, 3, 3), (7, 3, 3), (4, 19, 3), (4, 4, 9), (4, 4)])
def test_a_rank_outside_its_bounds_is_refused(ranks):
    with pytest.raises(RankError, match=r"between 1 and \(6, 18, 8\)"):
        TensorTrain(normal(0, 8, 6, 3, 3)).factors(ranks)


def test_no_rank_exceeds_that_of_its_unfolding():
    assert train_limits(8, 6, 3, 3) == (6, 18, 8)
    assert train_limits(2, 6, 3, 3) == (6, 6, 2)
    assert train_limits(20, 1, 2, 3) == (1, 2, 6)
    assert train_limits(1, 20, 2, 3) == (6, 3, 1)
