import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorly import cp_to_tensor
from tensorly.decomposition import parafac

from compress.decompose import als, cp
from compress.decompose.als import MOST_ENERGY
from compress.decompose.cp import Cp
from compress.decompose.terms import energy, khatri_rao
from compress.equivalent import relative_error
from compress.errors import DegenerateError, RankError, WeightsError
from tests.strategies import SEEDS, inputs_of, kernels, normal, second_moment

# Float64 round-off, and what the ridge of the fits may leave.
ROUND_OFF = 1e-9
BOTH = pytest.mark.parametrize("separable", [False, True], ids=["cp3", "cp4"])


def product(decomposition, rank, weight):
    factors = decomposition.factors((rank,))
    if len(factors) == 3:
        return torch.einsum("ri,rk,or->oik", *factors).reshape(weight.shape)
    return torch.einsum("ri,rh,rw,or->oihw", *factors)


def full_rank(weight):
    outputs, inputs, height, width = weight.shape
    return height * width * min(outputs, inputs)


def term_energy(decomposition, rank):
    """The sum of the terms' squared norms."""
    *rest, out_factor = decomposition.factors((rank,))
    return float(torch.stack([f.norm(dim=1) for f in (*rest, out_factor.T)]).prod(0).square().sum())


def outer(*vectors):
    return torch.einsum("o,i,h,w->oihw", *(v / v.norm() for v in vectors))


@BOTH
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_full_rank_is_exact(separable, data):
    weight = data.draw(kernels(most_channels=5))
    samples = data.draw(inputs_of(weight))
    for metric in (None, second_moment(samples)):
        found = product(Cp(weight, metric, separable=separable), full_rank(weight), weight)
        torch.testing.assert_close(found, weight, rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_the_error_is_within_that_of_one_svd_for_each_place(data):
    weight = data.draw(kernels())
    rank = data.draw(st.integers(1, full_rank(weight)))
    kernel = weight.flatten(2)
    _, basis = torch.linalg.eigh(torch.einsum("oik,oil->kl", kernel, kernel))
    places = torch.einsum("oik,kl->loi", kernel, basis)
    values = torch.linalg.svdvals(places).flatten().sort(descending=True).values.square()
    error = (product(Cp(weight), rank, weight) - weight).square().sum()
    assert float(error) <= float(values[rank:].sum()) + ROUND_OFF


@pytest.mark.filterwarnings("ignore:Trying to compute SVD")  # tensorly, at ranks above a mode
@pytest.mark.parametrize("rank", [8, 24, 40])
def test_the_error_is_near_that_of_tensorly(rank):
    # A Tucker tensor with a falling spectrum and noise, as trained kernels are.
    core = normal(0, 8, 8, 9) * torch.logspace(0, -1, 8).double()[:, None, None]
    kernel = torch.einsum("pqk,op,iq->oik", core, normal(1, 20, 8), normal(2, 16, 8))
    kernel = kernel + 0.15 * kernel.std() * normal(3, 20, 16, 9)
    weight = kernel.reshape(20, 16, 3, 3)
    theirs = cp_to_tensor(parafac(kernel.numpy(), rank, n_iter_max=40, init="svd", random_state=0))
    their_error = (torch.from_numpy(theirs) - kernel).norm()
    # Local minima differ; a tenth is far more than they do at these sizes.
    assert (product(Cp(weight), rank, weight) - weight).norm() <= 1.1 * their_error


def test_a_tensor_of_few_terms_is_found_again():
    factors = [torch.linalg.qr(normal(seed, size, 3))[0] for seed, size in enumerate((7, 6, 3, 3))]
    weight = torch.einsum("or,ir,hr,wr,r->oihw", *factors, torch.tensor([3.0, 2.0, 1.0]).double())
    for separable in (False, True):
        found = product(Cp(weight, separable=separable), 3, weight)
        torch.testing.assert_close(found, weight, rtol=0, atol=1e-6)


@BOTH
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_in_the_norm_of_the_data_it_is_never_worse_than_the_plain_one(separable, data):
    weight = data.draw(kernels(most_channels=5))
    metric = second_moment(data.draw(inputs_of(weight)))
    rank = data.draw(st.integers(1, full_rank(weight)))
    fitted, plain = (
        relative_error(weight, product(decomposition, rank, weight), metric)
        for decomposition in (
            Cp(weight, metric, separable=separable),
            Cp(weight, separable=separable),
        )
    )
    assert fitted <= plain + ROUND_OFF


@BOTH
def test_on_correlated_inputs_it_is_far_better_than_the_plain_one(separable):
    weight, metric = normal(0, 8, 6, 3, 3), second_moment(normal(1, 99, 9) @ normal(2, 9, 54))
    fitted, plain = (
        relative_error(weight, product(Cp(weight, m, separable=separable), 12, weight), metric)
        for m in (metric, None)
    )
    assert fitted < 0.5 * plain


@BOTH
def test_no_sweep_raises_the_error(monkeypatch, separable):
    weight, errors = normal(0, 8, 6, 3, 3), []
    monkeypatch.setattr(als, "STALLED", 0)
    for sweeps in range(6):
        monkeypatch.setattr(als, "SWEEPS", sweeps)
        found = product(Cp(weight, separable=separable), 14, weight)
        errors.append(float((found - weight).square().sum()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.99 * errors[0]


@BOTH
def test_no_weighted_sweep_raises_the_error(monkeypatch, separable):
    weight, metric = normal(0, 8, 6, 3, 3), second_moment(normal(1, 60, 54) @ normal(2, 54, 54))
    errors = []
    for sweeps in range(4):
        monkeypatch.setattr(cp, "WEIGHTED_SWEEPS", sweeps)
        found = product(Cp(weight, metric, separable=separable), 14, weight)
        errors.append(relative_error(weight, found, metric))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.9 * errors[0]


@BOTH
@pytest.mark.parametrize("sweeps", [0, 2])
def test_the_output_factor_is_the_best_for_the_others(monkeypatch, separable, sweeps):
    monkeypatch.setattr(cp, "WEIGHTED_SWEEPS", sweeps)
    weight, samples = normal(0, 5, 4, 3, 2), normal(1, 90, 24)
    *rest, out_factor = Cp(weight, second_moment(samples), separable=separable).factors((9,))
    terms = samples @ khatri_rao([factor.T for factor in rest])
    best = torch.linalg.lstsq(terms, samples @ weight.flatten(1).T).solution
    torch.testing.assert_close(out_factor.T, best, rtol=0, atol=1e-3)


@BOTH
def test_ranks_may_exceed_the_channel_counts(separable):
    weight = normal(0, 8, 6, 3, 3)
    errors = [
        float((product(Cp(weight, separable=separable), rank, weight) - weight).norm())
        for rank in (6, 12, 24, 40)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.3 * errors[0]


def border_rank_tensor():
    """A limit of tensors of rank 2, whose terms grow without bound and cancel."""
    (a, b), (c, d), (e, f) = ([normal(s, 5), normal(s + 1, 5)] for s in (0, 2, 4))
    g = normal(6, 1)
    return outer(a, c, f, g) + outer(a, d, e, g) + outer(b, c, e, g)


@BOTH
def test_the_terms_of_a_border_rank_tensor_stay_bounded(monkeypatch, separable):
    monkeypatch.setattr(als, "SWEEPS", 100)
    monkeypatch.setattr(als, "STALLED", 0)
    weight = border_rank_tensor()
    whole = float(weight.square().sum())
    decomposition = Cp(weight, separable=separable)
    found = product(decomposition, 2, weight)
    assert 2 * whole < term_energy(decomposition, 2) <= MOST_ENERGY * whole
    assert (found - weight).square().sum() < 0.1 * whole


@BOTH
def test_terms_that_outgrow_every_ridge_are_refused_with_another_method(monkeypatch, separable):
    monkeypatch.setattr(als, "SWEEPS", 100)
    monkeypatch.setattr(als, "STALLED", 0)
    monkeypatch.setattr(als, "MOST_ENERGY", 2.0)
    with pytest.raises(DegenerateError, match=r"rank 2 .* beyond 2 times .* tucker2"):
        Cp(border_rank_tensor(), separable=separable).factors((2,))


def test_terms_that_outgrow_a_small_ridge_are_sought_anew_with_a_larger_one(monkeypatch):
    monkeypatch.setattr(als, "STALLED", 0)
    weight = border_rank_tensor().flatten(2)
    loose = als.Als(weight).fit(2)
    monkeypatch.setattr(als, "RIDGES", (1e-4, 1.0))
    monkeypatch.setattr(als, "MOST_ENERGY", 0.9 * energy(loose.factors) / energy_of(weight))
    held = als.Als(weight).fit(2)
    assert (loose.starts, held.starts) == (1, 2)
    assert energy(held.factors) < energy(loose.factors)
    assert held.error < energy_of(weight)


def energy_of(weight):
    return float(weight.square().sum())


@pytest.mark.parametrize("most_energy", [MOST_ENERGY, 1.0])
@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=SEEDS, rank=st.integers(1, 40))
def test_the_terms_of_any_kernel_stay_bounded(monkeypatch, most_energy, seed, rank):
    monkeypatch.setattr(als, "MOST_ENERGY", most_energy)
    weight, metric = normal(seed, 6, 5, 3, 3), second_moment(normal(seed + 1, 20, 45))
    for used in (None, metric):
        try:
            found = term_energy(Cp(weight, used), rank)
        except DegenerateError:
            assert most_energy == 1.0
        else:
            assert found <= (most_energy + 1e-9) * float(weight.square().sum())


@BOTH
def test_kernels_and_inputs_of_zeros_stay_finite(separable):
    weight = normal(0, 4, 3, 2, 2)
    dead = second_moment(normal(1, 50, 12))
    dead[:4], dead[:, :4] = 0, 0  # nothing ever comes in through the first channel
    zeros = torch.zeros_like(weight)
    for kernel, metric in [(zeros, dead), (weight, torch.zeros(12, 12)), (weight, dead)]:
        assert product(Cp(kernel, metric, separable=separable), 9, kernel).isfinite().all()
    assert not product(Cp(zeros, dead, separable=separable), 9, zeros).any()


@pytest.mark.parametrize("rank", [7, 20])
@pytest.mark.parametrize("before", [9, 20, 31])
def test_the_same_weight_gives_the_same_factors_whatever_was_asked_before(rank, before):
    weight, metric = normal(0, 6, 5, 3, 3), second_moment(normal(1, 90, 45))
    asked = Cp(weight, metric)
    asked.factors((before,))
    for once, again in zip(
        Cp(weight, metric).factors((rank,)), asked.factors((rank,)), strict=True
    ):
        assert torch.equal(once, again)


def test_the_ladder_is_a_better_start_than_the_svds_of_the_places(monkeypatch):
    errors = []
    for lowest in (als.LOWEST, 100):
        monkeypatch.setattr(als, "LOWEST", lowest)
        errors.append(sum(als.Als(normal(seed, 20, 16, 9)).fit(40).error for seed in range(5)))
    assert errors[0] < 0.98 * errors[1]


def test_new_terms_add_nothing_yet_and_leave_the_svds_of_the_places():
    terms = als.Als(normal(0, 8, 6, 9))
    rung = terms._rung_below(12)
    out_factor, in_factor, places = terms._grown(rung, 12).factors
    assert not out_factor[:, 8:].any()
    for found, start in zip((in_factor, places), terms._start_single[1:], strict=True):
        noise = found[:, 8:] - start[:, 8:12]
        assert 0.3 < float(noise.norm() / start[:, 8:12].norm()) < 3


def test_each_rung_is_climbed_once(monkeypatch):
    terms = als.Als(normal(0, 8, 6, 9))
    begun, descend = [], als.Als._descend

    def counted(self, begin, sweeps, ridge):
        begun.append(begin.factors[0].shape[1])
        return descend(self, begin, sweeps, ridge)

    monkeypatch.setattr(als.Als, "_descend", counted)
    for rank in (30, 20):
        terms.fit(rank)
    assert begun == [8, 12, 18, 27, 30, 20]


def test_where_the_ladder_is_farther_than_the_start_the_start_is_taken(monkeypatch):
    weight = normal(0, 8, 6, 9)
    monkeypatch.setattr(als.Als, "_rung_below", lambda self, rank: self._started(1))
    monkeypatch.setattr(als, "SWEEPS", 0)
    assert als.Als(weight).fit(54).error < 1e-9 * energy_of(weight)


def test_float32_sweeps_come_as_near_as_float64_ones(monkeypatch):
    weight = normal(0, 20, 16, 9)
    single = als.Als(weight).fit(40).error
    monkeypatch.setattr(als, "SINGLE", 1.0)
    assert single == pytest.approx(als.Als(weight).fit(40).error, rel=1e-3)


@BOTH
@pytest.mark.parametrize("scale", [1e-60, 1e-30, 1e30, 1e60])
def test_the_scale_of_a_kernel_changes_nothing_else(separable, scale):
    weight = normal(0, 8, 6, 3, 3)
    errors = [Cp(each, separable=separable).error((14,)) for each in (weight, scale * weight)]
    assert errors[1] == pytest.approx(errors[0], rel=1e-6)
    found = product(Cp(scale * weight, separable=separable), 14, weight)
    assert relative_error(weight, found / scale, None) == pytest.approx(errors[0], rel=1e-3)


def test_a_column_of_the_khatri_rao_product_is_the_kronecker_product_of_columns():
    a, b, c = normal(0, 3, 4), normal(1, 2, 4), normal(2, 5, 4)
    expected = torch.kron(torch.kron(a[:, 2], b[:, 2]), c[:, 2])
    torch.testing.assert_close(khatri_rao([a, b, c])[:, 2], expected)


@pytest.mark.parametrize("rank", [0, 37])
def test_a_rank_outside_its_bounds_is_refused(rank):
    with pytest.raises(RankError, match=r"between 1 and \(36,\)"):
        Cp(normal(0, 8, 4, 3, 3)).factors((rank,))


def test_a_weight_that_is_not_finite_is_refused():
    with pytest.raises(WeightsError, match="NaN or infinite"):
        Cp(torch.full((2, 2, 3, 3), float("nan")))


def test_an_extrapolation_that_leads_farther_off_is_not_kept(monkeypatch):
    kernel = torch.randn(12, 10, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    monkeypatch.setattr(als, "FURTHER", 1e3)
    errors = []
    for sweeps in (1, 2, 3, 7):
        monkeypatch.setattr(als, "SWEEPS", sweeps)
        errors.append(als.Als(kernel).fit(8).error)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.999 * errors[0]


@BOTH
def test_the_start_of_whitened_inputs_is_taken_where_it_is_better(monkeypatch, separable):
    """White inputs mixed along the channels and the places: whitening undoes just that.

    Not undone in the factors, the start would still help, but not nearly as much.
    """
    errors = []
    for seed in range(4):
        weight = normal(seed, 8, 6, 3, 3)
        mixing = torch.kron(normal(seed + 10, 6, 6), normal(seed + 20, 9, 9))
        fits = [Cp(weight, mixing @ mixing.T, separable=separable) for _ in range(2)]
        monkeypatch.setattr(fits[1], "_whitened", lambda _rank: None)
        errors.append([fit.error((10,)) for fit in fits])
    assert max(both / plain for both, plain in errors) < 0.77
