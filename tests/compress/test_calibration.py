from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.nn import functional as F

from compress.calibration import Trace, evaluating, mode_moments, moments, trace, windows
from compress.errors import CompressError, UnsupportedLayerError
from compress.kernels import kernel_of, weight_of
from compress.layers import shape_of
from compress.metric import ModeMoments
from compress.shrinkage import shrunk
from tests.strategies import SEEDS, any_conv_shapes

# torch tells about its own copy of the input, once a process.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even:UserWarning")


def layer_and_inputs(shape, images):
    layer = getattr(nn, shape.type)(**asdict(shape), dtype=torch.float64)
    size = (8, 9, 7)[: shape.axes]
    return layer, torch.randn(images, shape.in_channels, *size, dtype=torch.float64)


def patches(conv, x):
    """Every patch as a row: the outputs of a convolution whose kernels pick one entry each."""
    shape = replace(shape_of(conv), groups=1, bias=False)
    size = shape.in_channels * conv.weight[0, 0].numel()
    shape = replace(shape, out_channels=size)
    picker = type(conv)(**asdict(shape), dtype=x.dtype)
    picks = torch.eye(size, dtype=x.dtype).view(size, shape.in_channels, *shape.kernel_size)
    picker.weight.data = weight_of(shape, picks)
    with torch.no_grad():
        return picker(x).movedim(1, -1).reshape(-1, size)


@settings(max_examples=60, deadline=None)
@given(shape=any_conv_shapes(), seed=SEEDS)
def test_moments_are_the_averages_over_all_patches(shape, seed):
    torch.manual_seed(seed)
    conv, x = layer_and_inputs(shape, 5)
    rows = patches(conv, x)
    found = moments(nn.Sequential(conv), x.split(2), ["0"])["0"]
    assert found.count == len(rows)
    expected = rows.T @ rows / len(rows)
    if shape.groups == 1:
        torch.testing.assert_close(found.mean, rows.mean(0))
        torch.testing.assert_close(found.second, expected)
        return
    blocks = expected.unflatten(0, (shape.groups, -1)).unflatten(2, (shape.groups, -1))
    torch.testing.assert_close(found.mean, rows.mean(0).unflatten(0, (shape.groups, -1)))
    torch.testing.assert_close(found.second, blocks.diagonal(dim1=0, dim2=2).movedim(2, 0))


@settings(deadline=None)
@given(shape=any_conv_shapes(most_groups=1))
def test_windows_times_the_weight_are_the_convolution(shape):
    conv, x = layer_and_inputs(shape, 2)
    kernel = kernel_of(shape, conv.weight)
    outputs = windows(shape, x).flatten(1 + shape.axes) @ kernel.flatten(1).T
    outputs = outputs if conv.bias is None else outputs + conv.bias
    torch.testing.assert_close(outputs.movedim(-1, 1), conv(x))


def test_windows_of_one_unbatched_image_in_any_layout():
    conv = nn.Conv2d(3, 4, 3, padding=1)
    x = torch.randn(2, 3, 7, 8)
    expected = windows(shape_of(conv), x)
    assert torch.equal(windows(shape_of(conv), x[0]), expected[:1])
    assert torch.equal(windows(shape_of(conv), x.to(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize(("rows", "size"), [(1, 2**30), (20, 2**30), (200, 2**30), (8192, 1)])
@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d, nn.Conv3d])
def test_the_size_of_the_chunks_does_not_matter(monkeypatch, kind, rows, size):
    conv = kind(3, 6, 3, padding=1, stride=2, groups=3, dtype=torch.float64)
    x = torch.randn(5, 3, *[9] * (conv.weight.ndim - 2), dtype=torch.float64)
    whole = moments(nn.Sequential(conv), [x], ["0"])["0"]
    monkeypatch.setattr("compress.calibration.CHUNK_ROWS", rows)
    monkeypatch.setattr("compress.calibration.CHUNK_BYTES", size)
    parts = moments(nn.Sequential(conv), [x], ["0"])["0"]
    assert parts.count == whole.count
    torch.testing.assert_close(parts.second, whole.second)
    torch.testing.assert_close(parts.mean, whole.mean)


def test_patches_never_take_more_than_the_limit(monkeypatch):
    sizes = []
    matmul = torch.Tensor.__matmul__
    monkeypatch.setattr(
        torch.Tensor, "__matmul__", lambda a, b: (sizes.append(b.nbytes), matmul(a, b))[1]
    )
    monkeypatch.setattr("compress.calibration.CHUNK_BYTES", 10_000)
    conv = nn.Conv2d(8, 4, 3, padding=1)
    moments(nn.Sequential(conv), [torch.randn(3, 8, 16, 16)], ["0"])
    assert sum(sizes) == 3 * 16 * 16 * 72 * 4
    assert max(sizes) <= 10_000


def test_float32_sums_stay_exact():
    x = torch.rand(64, 4, 16, 16) + 10  # sums in float32 alone would lose the small part
    conv = nn.Conv2d(4, 4, 3)
    expected = patches(conv, x.double())
    found = moments(nn.Sequential(conv), x.split(8), ["0"])["0"]
    assert found.second.dtype == found.mean.dtype == torch.float64
    torch.testing.assert_close(
        found.second, expected.T @ expected / len(expected), rtol=2e-6, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(dtype):
    linear = nn.Linear(2, 2, dtype=dtype)
    x = torch.full((300, 2), 256, dtype=dtype)
    found = moments(nn.Sequential(linear), [x], ["0"])["0"]
    torch.testing.assert_close(found.second, torch.full((2, 2), 65536, dtype=torch.float64))


def test_a_linear_layer_counts_every_vector():
    x = torch.randn(4, 5, 6, 3, dtype=torch.float64)
    found = moments(nn.Sequential(nn.Linear(3, 2, dtype=torch.float64)), x.split(1), ["0"])["0"]
    rows = x.reshape(-1, 3)
    assert found.count == 120
    torch.testing.assert_close(found.second, rows.T @ rows / 120)


class Twice(nn.Module):
    """One layer called on two sizes, one whose weight is read, one that is never used."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Linear(3, 3)
        self.read = nn.Linear(3, 3)
        self.last = nn.Linear(3, 2)
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        x = self.norm(self.conv(F.avg_pool2d(self.conv(x), 2)))
        return self.last(F.linear(x.movedim(1, -1), self.read.weight))


def test_every_call_counts():
    model = Twice().double().eval()
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    both = torch.cat(
        [patches(model.conv, x), patches(model.conv, F.avg_pool2d(model.conv(x), 2))]
    ).detach()
    found = moments(model, [x], ["conv"])["conv"]
    assert found.count == 4 * (64 + 16)
    torch.testing.assert_close(found.second, both.T @ both / len(both))


def test_a_trace_has_the_layers_in_the_order_of_their_calls():
    assert list(trace(Twice(), torch.randn(2, 3, 8, 8)).items()) == [
        ("conv", Trace(calls=2, input_size=(8, 8), input_shape=(2, 3, 8, 8))),
        ("last", Trace(calls=1, input_size=(16, 1), input_shape=(2, 4, 4, 3))),
    ]


@pytest.mark.parametrize("name", ["read", "unused"])
def test_a_layer_that_is_never_called_has_no_moments(name):
    with pytest.raises(CompressError, match=f"'{name}' is never called"):
        moments(Twice(), [torch.randn(2, 3, 8, 8)], [name])


def test_what_has_no_shape_has_no_moments():
    with pytest.raises(UnsupportedLayerError, match="ReLU, a plain"):
        moments(nn.Sequential(nn.ReLU()), [], ["0"])


def test_a_trace_knows_the_size_of_every_axis():
    model = nn.Sequential(nn.Conv3d(2, 4, 3), nn.Flatten(2), nn.Conv1d(4, 4, 3, groups=2))
    traces = trace(model, torch.randn(1, 2, 5, 6, 7))
    assert [use.input_size for use in traces.values()] == [(5, 6, 7), (60,)]


def test_what_is_not_finite_is_told():
    x = torch.randn(2, 3, 8, 8)
    x[1, 2, 3, 4] = torch.inf
    with pytest.raises(CompressError, match="enters layer 'conv' is not finite"):
        moments(Twice(), [x], ["conv"])


def test_the_network_is_left_as_it_was():
    model = Twice()
    model.conv.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x = torch.randn(2, 3, 8, 8)
    moments(model, [x], ["conv"])
    trace(model, x)
    with pytest.raises(RuntimeError, match="shape"):
        moments(model, [x[:, :2]], ["conv"])
    with pytest.raises(ZeroDivisionError), evaluating(model):
        1 / 0  # noqa: B018
    assert [m.training for m in model.modules()] == [m is not model.conv for m in model.modules()]
    assert not any(m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.is_grad_enabled()


@settings(max_examples=40, deadline=None)
@given(shape=any_conv_shapes(), seed=SEEDS)
def test_moments_of_the_modes_are_the_partial_traces_of_the_whole(shape, seed):
    torch.manual_seed(seed)
    conv, x = layer_and_inputs(shape, 5)
    model = nn.Sequential(conv)
    expected = ModeMoments.of(
        moments(model, [x], ["0"])["0"].second, kernel_of(shape, conv.weight).shape[1:]
    )
    found = mode_moments(model, x.split(2), ["0"])["0"]
    torch.testing.assert_close(found.channels, expected.channels)
    torch.testing.assert_close(found.axes, expected.axes)
    diagonal = mode_moments(model, [x], ["0"], diagonal=True)["0"]
    torch.testing.assert_close(diagonal.channels, found.channels.diagonal(dim1=-2, dim2=-1))
    torch.testing.assert_close(diagonal.axes, found.axes)


def test_a_linear_layer_has_one_mode():
    x = torch.randn(9, 4, 3)
    found = mode_moments(nn.Sequential(nn.Linear(3, 2)), [x], ["0"])["0"]
    assert found.axes == ()
    torch.testing.assert_close(
        found.channels, moments(nn.Sequential(nn.Linear(3, 2)), [x], ["0"])["0"].second
    )


def test_the_moment_to_decompose_by_is_the_shrunk_one():
    found = moments(nn.Sequential(nn.Linear(3, 2)), [torch.randn(4, 3)], ["0"])["0"]
    assert torch.equal(found.metric, shrunk(found.second, 4))
    assert not torch.equal(found.metric, found.second)


@pytest.mark.parametrize("name", ["read", "unused"])
def test_a_layer_that_is_never_called_has_no_moments_of_modes(name):
    with pytest.raises(CompressError, match=f"'{name}' is never called"):
        mode_moments(Twice(), [torch.randn(2, 3, 8, 8)], [name])
