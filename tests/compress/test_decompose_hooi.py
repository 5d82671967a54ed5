import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.decompose import hooi
from compress.decompose.hooi import Hooi
from compress.decompose.linalg import unfold
from tests.strategies import kernels, normal

# Of the energy: float32 round-off of a squared error, with room to spare.
SINGLE_ROUND_OFF = 1e-5


def error_of(kernel, ranks):
    (in_factor, core, out_factor), _ = Hooi(kernel).fit(ranks)
    found = torch.einsum("iq,pqk,op->oik", in_factor, core, out_factor)
    return float((found - kernel).square().sum() / kernel.square().sum())


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_it_is_never_worse_than_the_truncated_hosvd(data):
    kernel = data.draw(kernels().filter(torch.any)).flatten(2)
    ranks = tuple(data.draw(st.integers(1, size)) for size in kernel.shape[:2])
    out_basis, in_basis = (
        torch.linalg.svd(unfold(kernel, mode))[0][:, :rank] for mode, rank in enumerate(ranks)
    )
    kept = torch.einsum("oik,op,iq->pqk", kernel, out_basis, in_basis).square().sum()
    limit = 1 - float(kept / kernel.square().sum())
    assert error_of(kernel, ranks) <= limit + SINGLE_ROUND_OFF


def test_no_step_raises_the_error(monkeypatch):
    kernel, errors = normal(0, 12, 10, 9), []
    monkeypatch.setattr(hooi, "STALLED", 0)
    for steps in range(5):
        monkeypatch.setattr(hooi, "STEPS", steps)
        errors.append(error_of(kernel, (4, 3)))
    assert errors == sorted(errors, reverse=True)
    assert errors[1] < 0.998 * errors[0]
    assert errors[2] < 0.9995 * errors[1]


def test_a_step_that_gains_little_is_the_last(monkeypatch):
    kernel = normal(0, 12, 10, 9)
    monkeypatch.setattr(hooi, "STALLED", 1)
    stalled = error_of(kernel, (4, 3))
    monkeypatch.setattr(hooi, "STEPS", 1)
    assert stalled == error_of(kernel, (4, 3))


@pytest.mark.parametrize("noise", [0, 1e-7])
def test_what_is_nearly_exact_is_found_in_float64(noise):
    sides = [torch.linalg.qr(normal(seed, size, 3))[0] for seed, size in enumerate((9, 8))]
    kernel = torch.einsum("pqk,op,iq->oik", normal(2, 3, 3, 4), *sides)
    kernel = kernel + noise * normal(3, 9, 8, 4)
    (in_factor, _, out_factor), _ = Hooi(kernel).fit((3, 3))
    assert error_of(kernel, (3, 3)) <= max(10 * noise**2, 1e-24)
    for factor in (in_factor, out_factor):
        torch.testing.assert_close(factor.T @ factor, torch.eye(3).double(), rtol=0, atol=1e-12)


def test_what_is_left_is_the_error_of_the_factors():
    kernel = normal(0, 12, 10, 9)
    (in_factor, core, out_factor), left = Hooi(kernel).fit((4, 3))
    found = torch.einsum("iq,pqk,op->oik", in_factor, core, out_factor)
    assert left == pytest.approx(float((found - kernel).square().sum()), rel=1e-5)


@pytest.mark.parametrize("scale", [1e-60, 1e-30, 1e30, 1e60])
def test_the_scale_of_a_kernel_changes_nothing_else(scale):
    kernel = normal(0, 12, 10, 9)
    assert error_of(scale * kernel, (4, 3)) == pytest.approx(error_of(kernel, (4, 3)))
