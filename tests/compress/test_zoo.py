"""One small network of each family in torchvision, factorised in all its narrower layers."""

import copy
from itertools import cycle

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from compress.architectures import build
from compress.calibration import trace
from compress.layers import inspect
from compress.methods.registry import METHODS
from compress.plan import Choice, Plan
from compress.shape import stage_macs, stage_parameters
from compress.surgery import factorize_, is_factorized

# Side of the image: the least that each network takes, or nearly.
NETWORKS = {
    "densenet121": 32,
    "efficientnet_b0": 32,
    "googlenet": 32,
    "inception_v3": 75,
    "mobilenet_v3_small": 32,
    "regnet_y_400mf": 32,
    "resnet18": 32,
    "resnext50_32x4d": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 32,
    "swin_t": 32,
}
COMPILED = "resnet18"
EXACT = ("svd", "spatial_svd", "tucker2")  # methods that are the dense layer at full rank
WIDEST = 20_000  # weights of a layer: wider ones would take seconds each


def plan_of(network, traces, share):
    """Every narrower layer at `share` of its full rank, the methods that apply taking turns.

    Layers that are never called, as those whose weight their parent reads, are none to factorise.
    """
    choices, turns = {}, cycle(EXACT)
    for report in inspect(network):
        if report.reason is not None or report.name not in traces:
            continue
        if report.shape.parameters > WIDEST:
            continue
        method = next(m for m in turns if m == "svd" or m not in report.refusals)
        if method in report.refusals:
            continue
        limits = METHODS[method].limits(report.shape)
        choices[report.name] = Choice(method, tuple(max(1, int(share * r)) for r in limits))
    return Plan(choices)


@pytest.fixture(scope="module", params=NETWORKS)
def dense(request):
    torch.manual_seed(0)
    side = NETWORKS[request.param]
    return request.param, build(request.param).double(), torch.randn(2, 3, side, side).double()


def assert_near(found, wanted):
    assert (found - wanted).abs().max() <= 1e-8 * wanted.abs().max()


def multiply_adds(network, x):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(x)
    return counter.get_total_flops() // 2


def test_at_full_rank_nothing_changes(dense):
    _, network, x = dense
    plan = plan_of(network, trace(network, x[:1]), 1)
    assert len(plan) >= 1
    factorised = copy.deepcopy(network)
    factorize_(factorised, plan)
    with torch.no_grad():
        assert_near(factorised(x), network(x))


def test_at_half_rank_it_runs_learns_and_costs_what_was_said(dense):
    name, network, x = dense
    traces = trace(network, x[:1])
    plan = plan_of(network, traces, 0.5)
    factorised = copy.deepcopy(network)
    factorize_(factorised, plan)
    shapes = {report.name: report.shape for report in inspect(network)}
    saved_parameters = saved_macs = 0
    for layer, choice in plan:
        stages = METHODS[choice.method].stages(shapes[layer], choice.ranks)
        saved_parameters += shapes[layer].parameters - stage_parameters(stages)
        size, calls = traces[layer].input_size, traces[layer].calls
        saved_macs += calls * (shapes[layer].macs(size) - stage_macs(stages, size))

    def parameters(model):
        return sum(parameter.numel() for parameter in model.parameters())

    assert parameters(network) - parameters(factorised) == saved_parameters
    assert multiply_adds(network, x[:1]) - multiply_adds(factorised, x[:1]) == saved_macs

    answer = factorised(x)
    answer.square().sum().backward()
    for layer in (m for m in factorised.modules() if is_factorized(m)):
        for weight in layer.parameters():
            assert weight.grad is not None
            assert weight.grad.isfinite().all()
            assert weight.grad.abs().max() > 0
    with torch.no_grad():
        answer = factorised(x)
        if name == COMPILED:
            assert_near(torch.compile(factorised, backend="aot_eager")(x), answer)
        factorised.to(memory_format=torch.channels_last)
        assert_near(factorised(x.contiguous(memory_format=torch.channels_last)), answer)
