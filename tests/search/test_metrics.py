import pytest
import torch

from compress.calibration import mode_moments, moments, trace
from compress.gradients import gradient_moments
from compress.layers import inspect
from compress.memory import gradient_bytes, mode_bytes, moment_bytes
from compress.metric import Metric, ModeMoments
from search.metrics import Metrics, likelihood
from tests.search.subjects import small

BATCHES = torch.randn(192, 3, 8, 8, generator=torch.Generator().manual_seed(0)).split(64)


@pytest.fixture
def network():
    return small()


def collected(network, limit, importance="loss", names=("conv3", "classify")):
    shapes = {layer.name: layer.shape for layer in inspect(network) if layer.shape is not None}
    metrics = Metrics(
        network,
        shapes,
        trace(network, BATCHES[0]),
        BATCHES,
        importance=importance,
        likelihood="classes",
        max_memory_bytes=limit,
    )
    metrics.collect(names)
    return metrics, shapes


def test_the_finest_metric_is_both_sides_and_the_last_the_plain_one(network):
    metrics, _ = collected(network, 2**30)
    whole = moments(network, BATCHES[:2], ["conv3"])["conv3"].metric
    gradients = gradient_moments(network, BATCHES[:2], ["conv3"])["conv3"]
    found = metrics.of("conv3")
    finest, by_mode, outputs, plain = found.metrics
    torch.testing.assert_close(finest.inputs, whole)
    torch.testing.assert_close(finest.outputs, gradients.metric)
    torch.testing.assert_close(by_mode.inputs.axes, ModeMoments.of(whole, (12, 3, 3)).axes)
    assert (outputs.inputs, plain) == (None, None)
    assert by_mode.outputs is outputs.outputs is finest.outputs
    assert found.scale == 16 / 2  # half of the outputs that each image has


def test_by_importance_output_the_metric_is_that_of_the_inputs_alone(network):
    metrics, _ = collected(network, 2**30, "output")
    finest, by_mode, plain = metrics.of("conv3").metrics
    assert torch.equal(finest, moments(network, BATCHES[:2], ["conv3"])["conv3"].metric)
    assert by_mode.outputs is plain is None
    assert metrics.of("conv3").scale is None


def test_each_moment_over_the_memory_gives_way_to_a_smaller_one(network):
    _, shapes = collected(network, 2**30)
    shape = shapes["conv3"]
    steps = [moment_bytes(shape), mode_bytes(shape), mode_bytes(shape, diagonal=True)]
    assert steps == [8 * 3 * 108**2, 8 * 3 * (144 + 18), 8 * 3 * (12 + 18)]
    assert gradient_bytes(shape) == 8 * 3 * 16**2

    def finest(limit):
        return collected(network, limit)[0].of("conv3").metrics[0]

    by_mode = mode_moments(network, BATCHES[:2], ["conv3"])["conv3"]
    assert isinstance(finest(steps[0]).inputs, torch.Tensor)
    for limit in (steps[0] - 1, gradient_bytes(shape)):
        torch.testing.assert_close(finest(limit).inputs.channels, by_mode.channels)
        assert finest(limit).outputs.shape == (16, 16)
    assert finest(gradient_bytes(shape) - 1).outputs.shape == (16,)
    assert finest(steps[1]).inputs.channels.shape == (12, 12)
    assert finest(steps[1] - 1).inputs.channels.shape == (12,)
    assert finest(steps[2]).inputs.channels.shape == (12,)
    assert finest(steps[2] - 1).inputs is None


def test_a_linear_layer_over_the_memory_has_the_variances_of_its_inputs(network):
    metrics, shapes = collected(network, 8 * 3 * 16**2 - 1)
    x = metrics.of("classify").metrics[0]
    whole = moments(network, BATCHES, ["classify"])["classify"].second
    torch.testing.assert_close(x.inputs.channels, whole.diagonal(), rtol=0.2, atol=1e-3)
    assert moment_bytes(shapes["classify"]) == mode_bytes(shapes["classify"])


def test_what_is_let_go_is_the_plain_norm_until_it_is_collected_again(network):
    metrics, _ = collected(network, 2**30)
    before = metrics.of("conv3").metrics[0]
    metrics.let_go("conv3")
    assert metrics.of("conv3").metrics == metrics.of("conv1").metrics == (None,)
    metrics.collect(["conv3"])
    assert torch.equal(metrics.of("conv3").metrics[0].outputs, before.outputs)
    again = metrics.of("conv3")
    metrics.collect(["conv3"])
    assert metrics.of("conv3") is again


def test_a_plain_metric_needs_no_coordinates():
    assert Metric.of(None).mode_moments == {}
    assert [likelihood(metric) for metric in ("mse", "top1", "agreement")] == [
        "values",
        "classes",
        "classes",
    ]
