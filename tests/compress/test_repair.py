import copy

import pytest
import torch
from torch import nn

from compress.calibration import moments
from compress.errors import PlanError
from compress.plan import Choice, Plan
from compress.reference import Reference
from compress.repair import repair_
from compress.surgery import factorize_

PLANS = {
    "svd": Plan(
        {
            "conv2": Choice("svd", (5,)),
            "conv3": Choice("svd", (6,)),
            "classify": Choice("svd", (3,)),
        }
    ),
    "spatial": Plan({"conv3": Choice("spatial_svd", (3,)), "conv2": Choice("spatial_svd", (3,))}),
    "tucker2": Plan({"conv2": Choice("tucker2", (4, 3)), "conv3": Choice("tucker2", (5, 4))}),
    "cp3": Plan({"conv3": Choice("cp3", (4,)), "classify": Choice("svd", (3,))}),
}


def images(count, seed=1):
    """Smooth images: neighbouring pixels agree, as in photographs."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 3, 3, generator=generator)
    return nn.functional.interpolate(coarse, size=(8, 8), mode="bilinear")


def states(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(model, state):
    return all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def repaired(model, dense, plan, batches):
    return repair_(model, plan, Reference.of(dense, list(plan.choices), batches))


def error(model, dense, x):
    with torch.no_grad():
        return float((model(x) - dense(x)).double().square().mean())


@pytest.fixture(params=PLANS)
def case(request, tiny):
    """A dense network, a plan, the network factorised by it, calibration batches."""
    plan, batches = PLANS[request.param], list(images(240).split(100))
    model = copy.deepcopy(tiny)
    factorize_(model, plan, moments(tiny, batches, list(plan.choices)))
    return tiny, plan, model, batches


def test_the_outputs_come_nearer_on_images_never_seen(case):
    dense, plan, model, batches = case
    fresh = images(400, seed=2)
    before, seen_before = error(model, dense, fresh), error(model, dense, torch.cat(batches))
    report = repaired(model, dense, plan, batches)
    assert report.error_before == pytest.approx(seen_before)
    assert report.error_after == pytest.approx(error(model, dense, torch.cat(batches)))
    assert report.error_after < report.error_before
    assert report.refitted
    assert error(model, dense, fresh) < before


def test_the_same_call_gives_the_same_network(case, monkeypatch):
    monkeypatch.setattr("compress.reference.ROWS", 500)  # fewer than there are: they are drawn
    dense, plan, model, batches = case
    again = copy.deepcopy(model)
    first = repaired(model, dense, plan, batches)
    torch.manual_seed(99)
    assert repaired(again, dense, plan, batches) == first
    assert same(again, states(model))


def test_the_dense_network_and_all_modes_are_left_as_they_were(case):
    dense, plan, model, batches = case
    model.train()
    model.conv1.eval()
    dense.relu1.train()
    before, modes = states(dense), [[m.training for m in n.modules()] for n in (model, dense)]
    momenta = [m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    repaired(model, dense, plan, batches)
    assert same(dense, before)
    assert [[m.training for m in n.modules()] for n in (model, dense)] == modes
    assert [m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)] == momenta
    for network in (model, dense):
        for module in network.modules():
            assert not module._forward_hooks
            assert not module._forward_pre_hooks
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("method", ["svd", "spatial_svd"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
def test_the_refit_finds_the_factor_that_was_lost(method, bias, padding_mode, monkeypatch):
    """The first factor keeps everything, so a last factor exists that computes the same."""
    monkeypatch.setattr("compress.reference.ROWS", 600)  # of 2560
    geometry = {"padding": (2, 1), "stride": (1, 2), "padding_mode": padding_mode, "bias": bias}
    dense = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 40, 3, **geometry))
    plan = Plan({"2": Choice(method, (12 if method == "spatial_svd" else 36,))})
    model = copy.deepcopy(dense)
    factorize_(model, plan)
    with torch.no_grad():
        for parameter in model[2][-1].parameters():
            parameter.normal_()
    report = repaired(model, dense, plan, list(torch.randn(64, 3, 8, 8).split(16)))
    assert report.refitted == ("2",)
    assert report.error_after < 1e-6 * report.error_before  # what the smallest ridge leaves


def test_a_linear_layer_of_many_vectors_is_refitted():
    dense = nn.Sequential(nn.Linear(6, 8))
    model, plan = copy.deepcopy(dense), Plan({"0": Choice("svd", (6,))})
    factorize_(model, plan)
    with torch.no_grad():
        model[0][-1].weight.normal_()
    report = repaired(model, dense, plan, [torch.randn(16, 5, 6) for _ in range(2)])
    assert report.error_after < 1e-6 * report.error_before


def test_a_later_layer_is_fitted_to_what_the_layers_before_really_give():
    dense = nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 12))
    model, plan = copy.deepcopy(dense), Plan({name: Choice("svd", (8,)) for name in ("1", "0")})
    factorize_(model, plan)
    x = torch.randn(512, 12) @ torch.randn(12, 12)
    batches = list(x.split(128))
    assert repaired(model, dense, plan, batches).refitted == ("0", "1")
    with torch.no_grad():
        h = torch.cat([model[1][0](model[0](x)), torch.ones(512, 1)], 1).double()
        best = torch.linalg.lstsq(h, dense(x).double()).solution
        least = (h @ best - dense(x)).square().mean()
    assert error(model, dense, x) == pytest.approx(float(least), rel=1e-3)


def test_a_layer_called_twice_is_fitted_to_both_calls():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x):
            return self.layer(3 * self.layer(x))

    dense = Twice()
    model, plan = copy.deepcopy(dense), Plan({"layer": Choice("svd", (6,))})
    factorize_(model, plan)
    x = torch.randn(256, 6)
    with torch.no_grad():
        model.layer[-1].weight.add_(0.05 * torch.randn(6, 6))
        h = torch.cat([model.layer[0](x), model.layer[0](3 * model.layer(x))])
        y = torch.cat([dense.layer(x), dense.layer(3 * dense.layer(x))])
        best = torch.linalg.lstsq(torch.cat([h, torch.ones(512, 1)], 1), y).solution
        least = (h @ best[:-1] + best[-1] - y).square().mean()
        report = repaired(model, dense, plan, list(x.split(64)))
        assert report.refitted == ("layer",)
        assert (model.layer[-1](h) - y).square().mean() < 1.02 * least


def test_what_does_not_help_inputs_left_out_of_the_fit_is_not_changed():
    """Eight inputs, regressors that know nothing of the outputs: a fit would be one to noise."""
    dense = nn.Sequential(nn.Linear(64, 8, bias=False))
    model, plan = copy.deepcopy(dense), Plan({"0": Choice("svd", (8,))})
    with torch.no_grad():
        dense[0].weight[:, :16] = 0
    factorize_(model, plan)
    with torch.no_grad():
        model[0][0].weight[:, 16:] = 0
        model[0][1].weight.zero_()
    before = states(model)
    report = repaired(model, dense, plan, [torch.randn(8, 64)])
    assert report.refitted == ()
    assert report.error_after == report.error_before
    assert same(model, before)


def few_inputs(bias):
    """Eight inputs for 64 weights a row, as above, and outputs that are all shifted."""
    dense = nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 8, bias=bias))
    dense.requires_grad_(False)
    model, plan = copy.deepcopy(dense), Plan({"0": Choice("svd", (8,))})
    factorize_(model, plan)
    model[0][0].weight.normal_()
    model[0][1].weight.zero_()
    dense[0].weight[:] *= 0.01
    model[0][1].bias += 2
    return dense, model, plan


def test_where_the_weights_cannot_be_fitted_the_bias_alone_is():
    dense, model, plan = few_inputs(bias=True)
    x = torch.randn(8, 64)
    weights = model[0][1].weight.clone()
    report = repaired(model, dense, plan, [x])
    assert (report.refitted, report.corrected) == ((), ("0",))
    assert torch.equal(model[0][1].weight, weights)
    torch.testing.assert_close(model[0](x).mean(0), dense[0](x).mean(0), rtol=1e-3, atol=1e-3)
    assert report.error_after < 0.1 * report.error_before


def test_biases_that_would_lead_farther_off_are_put_back(monkeypatch):
    dense, model, plan = few_inputs(bias=True)
    model[2].bias += 1  # which the shifted inputs happen to make up for, say
    before = states(model)
    errors = iter([1.0, 2.0, 2.0])
    monkeypatch.setattr("compress.repair._output_error", lambda *_: next(errors))
    report = repaired(model, dense, plan, [torch.randn(8, 64)])
    assert (report.refitted, report.corrected) == ((), ())
    assert report.error_after == 1.0
    assert same(model, before)


def test_a_layer_that_ends_in_another_kind_of_stage_is_left(tiny):
    model = copy.deepcopy(tiny)
    factorize_(model, PLANS["svd"])
    model.conv2.add_module("last", nn.Flatten(0, 0))
    before = states(model.conv2)
    report = repaired(model, tiny, PLANS["svd"], [images(64)])
    assert report.refitted
    assert "conv2" not in (*report.refitted, *report.corrected)
    assert same(model.conv2, before)


def test_norms_get_the_average_over_all_images():
    """The batches are unequal, and the average must not see it."""
    dense = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten()).eval()
    x = torch.randn(30, 3, 8, 8)
    with torch.no_grad():
        y = dense[0](x)
        dense[1].running_mean.copy_(y.mean((0, 2, 3)))
        dense[1].running_var.copy_(y.transpose(0, 1).flatten(1).var(1))
    model = copy.deepcopy(dense)
    model[1].running_mean.add_(1)
    report = repaired(model, dense, Plan(), list(x.split([20, 9, 1])))
    assert report.norms_recalibrated
    torch.testing.assert_close(model[1].running_mean, y[:29].mean((0, 2, 3)))
    within = [y[:20], y[20:29]]
    variances = [part.transpose(0, 1).flatten(1).var(1) for part in within]
    torch.testing.assert_close(model[1].running_var, (20 * variances[0] + 9 * variances[1]) / 29)


def test_norms_that_would_lead_farther_off_are_left_alone():
    """The dense network's statistics are of other images than those of the calibration."""
    dense = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten()).eval()
    dense[1].running_mean.add_(3)
    model = copy.deepcopy(dense)
    before = states(model)
    report = repaired(model, dense, Plan(), [torch.randn(16, 3, 8, 8)])
    assert not report.norms_recalibrated
    assert report.error_after == report.error_before == 0
    assert same(model, before)


def test_a_refit_that_would_lead_farther_off_is_undone(tiny, monkeypatch):
    plan, batches = PLANS["svd"], [images(32)]
    model = copy.deepcopy(tiny)
    factorize_(model, plan, moments(tiny, batches, list(plan.choices)))
    before = states(model)

    def spoil_(model, stage, *_):
        stage.weight.add_(100)
        return True

    monkeypatch.setattr("compress.repair.refit_", spoil_)
    report = repaired(model, tiny, plan, batches)
    assert report.refitted == ()
    weights = {key: value for key, value in before.items() if "norm" not in key}
    assert all(torch.equal(model.state_dict()[key], value) for key, value in weights.items())
    assert report.error_after <= report.error_before


def test_a_plan_of_another_network_is_refused(tiny):
    with pytest.raises(PlanError, match="'conv2', which is not factorised"):
        repaired(copy.deepcopy(tiny), tiny, PLANS["svd"], [images(4)])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_are_repaired_too(tiny, dtype):
    dense, batches = tiny.to(dtype), [images(64).to(dtype)]
    model = copy.deepcopy(dense)
    factorize_(model, PLANS["svd"], moments(dense, batches, list(PLANS["svd"].choices)))
    report = repaired(model, dense, PLANS["svd"], batches)
    assert report.error_after < report.error_before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_network_on_a_gpu_is_repaired_there(case):
    dense, plan, model, batches = case
    batches = [batch.cuda() for batch in batches]
    report = repaired(model.cuda(), dense.cuda(), plan, batches)
    assert report.error_after < report.error_before
