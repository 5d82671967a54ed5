import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.decompose.linalg import roots
from compress.decompose.svd import ChannelSvd
from compress.errors import CompressError, RankError, WeightsError
from compress.metric import Metric, MetricError, ModeMoments
from compress.recurrent.fit import fit
from compress.recurrent.formats import FORMATS, network_of
from compress.recurrent.modes import Modes
from tests.compress.recurrent.matrices import matrix_of, networks, projection_of
from tests.strategies import SEEDS, normal, sampled_error, second_moment

MODES = Modes((3, 2, 4), (2, 3, 3))
N, M = 24, 18
SHORT = Modes((4, 6), (6, 3))


def samples_of(size, seed=7):
    """Correlated, of very different variances."""
    turned = normal(seed, 3 * size, size) @ normal(seed + 1, size, size)
    return turned * torch.logspace(0, -1.5, size, dtype=torch.float64)


def ranks_of(name, modes, rank=2):
    return (rank, rank) if name == "kcp" else FORMATS[name].uniform(modes, rank)


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - {"cp", "kronecker", "kcp", "block_term"}))
@pytest.mark.parametrize("aware", [False, True])
def test_a_matrix_of_this_format_is_found_again(name, aware):
    ranks = ranks_of(name, MODES)
    weight = matrix_of(projection_of(network_of(name, MODES, ranks))).detach()
    metric = second_moment(samples_of(N)) if aware else None
    found = fit(name, weight, MODES, ranks, metric)
    # Of a closed chain the start is not the whole fit, and a fit ends before it is exact.
    least = 2e-2 if name == "tensor_ring" else 1e-12
    assert found.error < least
    assert sampled_error(weight, matrix_of(found.projection).detach(), samples_of(N)) < 10 * least


@pytest.mark.parametrize("modes", [SHORT, MODES], ids=["d=2", "d=3"])
@pytest.mark.parametrize("name", ["kronecker", "kcp"])
def test_sums_of_kronecker_products_are_found_again(name, modes):
    ranks = ranks_of(name, modes)
    weight = matrix_of(projection_of(network_of(name, modes, ranks))).detach()
    assert fit(name, weight, modes, ranks).error < 1e-6


def test_two_modes_in_the_plain_norm_leave_what_the_rearranged_weight_loses():
    weight = normal(0, 18, 24)
    cut = torch.linalg.svdvals(rearranged(weight))[3:].square().sum() / weight.square().sum()
    assert fit("kronecker", weight, SHORT, (3,)).error == pytest.approx(float(cut), rel=1e-6)


def rearranged(weight):
    """A Kronecker product of the modes `SHORT` is a matrix (24, 18) of rank 1."""
    return weight.reshape(6, 3, 4, 6).permute(2, 0, 3, 1).reshape(24, 18)


def test_where_the_modes_vary_independently_the_start_is_the_best_of_its_rank():
    weight = normal(0, 18, 24)
    moments = [second_moment(samples_of(size, size)) for size in SHORT.inputs]
    (left, _), (right, _) = map(roots, moments)
    white = rearranged(weight @ torch.kron(left, right))
    cut = torch.linalg.svdvals(white)[2:].square().sum() / white.square().sum()
    found = fit("kronecker", weight, SHORT, (2,), torch.kron(*moments))
    assert found.error == pytest.approx(float(cut), rel=1e-6)


def test_a_descent_that_fails_leaves_the_start(monkeypatch):
    weight = normal(0, M, N)
    expected = fit("tucker", weight, MODES, (2,) * 6).error

    def ruin(_, projection, dtype):
        with torch.no_grad():
            projection.core.fill_(torch.nan)

    monkeypatch.setattr("compress.recurrent.fit._Target._descend_", ruin)
    start = fit("tucker", weight, MODES, (2,) * 6)
    assert expected < start.error < 1
    assert all(value.isfinite().all() for value in start.projection.parameters())


def test_svd_is_the_best_of_its_rank():
    weight, metric = normal(0, M, N), second_moment(samples_of(N))
    assert fit("svd", weight, MODES, (5,), metric).error == pytest.approx(
        ChannelSvd(weight, metric).error((5,)), rel=1e-9
    )


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - {"dense", "svd"}))
def test_the_data_make_it_better_where_they_are(name):
    weight, samples = normal(0, M, N), samples_of(N)
    metric, ranks = second_moment(samples), ranks_of(name, MODES)
    plain, aware = fit(name, weight, MODES, ranks), fit(name, weight, MODES, ranks, metric)
    errors = [
        sampled_error(weight, matrix_of(each.projection).detach(), samples)
        for each in (plain, aware)
    ]
    assert errors[1] < errors[0]
    assert aware.error == pytest.approx(errors[1], rel=1e-6)


@settings(deadline=None, max_examples=40)
@given(found=networks(), seed=SEEDS, aware=st.booleans())
def test_any_format_fits_any_matrix_no_worse_than_nothing(found, seed, aware):
    name, modes, ranks, _ = found
    weight = normal(seed, modes.out_features, modes.in_features)
    metric = second_moment(samples_of(modes.in_features)) if aware else None
    assert fit(name, weight, modes, ranks, metric).error <= 1 + 1e-9


@pytest.mark.parametrize("name", FORMATS)
def test_a_matrix_of_zeros_stays_one(name):
    found = fit(name, torch.zeros(M, N), MODES, ranks_of(name, MODES))
    assert found.error == 0
    assert found.projection(torch.ones(2, N)).abs().max() == 0


@pytest.mark.parametrize("name", ["tensor_ring", "kcp"])
def test_ranks_above_what_the_start_can_use_are_used(name):
    weight = normal(0, M, N)
    limits = FORMATS[name].limits(MODES)
    small, large = (
        fit(name, weight, MODES, tuple(min(rank, limit) for limit in limits)).error
        for rank in (2, 6)
    )
    assert large < 0.7 * small


def test_the_projection_has_the_dtype_of_the_weight_and_nothing_of_its_storage():
    weight = torch.randn(M, N, dtype=torch.float32)
    found = fit("dense", weight, MODES, ())
    assert found.projection.weight.dtype == torch.float32
    weight.zero_()
    assert found.projection.weight.abs().max() > 0


def test_what_does_not_fit_is_refused():
    weight = normal(0, M, N)
    with pytest.raises(RankError, match="came for one of"):
        fit("kcp", weight.T, MODES, (1, 1))
    with pytest.raises(WeightsError, match="NaN"):
        fit("kcp", weight * torch.nan, MODES, (1, 1))
    with pytest.raises(CompressError, match="second moment"):
        fit("kcp", weight, MODES, (1, 1), torch.eye(M))


@pytest.mark.parametrize("name", ["svd", "kcp", "tensor_train"])
@pytest.mark.parametrize("whole", [True, False])
def test_outputs_that_count_more_are_nearer(name, whole):
    """Of outputs whose importances differ, and of whose moment the diagonal may be all there is."""
    weight, ranks = normal(0, M, N), ranks_of(name, SHORT, 3)
    importance = torch.logspace(0, -3, M, dtype=torch.float64)[torch.randperm(M)]
    inputs = second_moment(samples_of(N))
    metric = Metric(inputs, importance.diag() if whole else importance)
    errors = MetricError(weight, metric)
    alike, weighed = (
        errors.of(matrix_of(fit(name, weight, SHORT, ranks, norm).projection).detach())
        for norm in (inputs, metric)
    )
    assert weighed < 0.8 * alike


def test_moments_of_single_inputs_serve_too():
    weight = normal(0, M, N)
    moment = samples_of(N).square().mean(0)
    coarse, whole = (
        fit("kcp", weight, SHORT, (3, 3), metric).error
        for metric in (Metric(ModeMoments(moment, ())), moment.diag())
    )
    assert coarse == pytest.approx(whole)
