"""Networks of every floating dtype, from the dense one to the files of the result."""

import copy

import pytest
import torch
from torch import nn

from compress.artifact import write_result
from compress.calibration import moments
from compress.export import export_program
from compress.layers import shape_of
from compress.load import load
from compress.methods.registry import METHODS
from compress.plan import Choice, Plan
from compress.reference import Reference
from compress.repair import repair_
from compress.surgery import factorize_

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
PLAN = Plan(
    {
        "conv2": Choice("svd", (5,)),
        "conv3": Choice("tucker2", (8, 6)),
        "classify": Choice("svd", (3,)),
    }
)


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request):
    return request.param


def images(count, dtype, seed=1):
    """Smooth images: neighbouring pixels agree, as in photographs."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 3, 3, generator=generator)
    return nn.functional.interpolate(coarse, size=(8, 8), mode="bilinear").to(dtype)


def distance(model, dense, x):
    """Of the outputs, relative to those of the dense network."""
    with torch.no_grad():
        y, expected = model(x).double(), dense(x).double()
    return float((y - expected).norm() / expected.norm())


@pytest.mark.parametrize("method", ["svd", "spatial_svd", "tucker2"])
def test_full_rank_is_as_exact_as_the_dtype(tiny, dtype, method):
    dense, x = tiny.to(dtype), images(16, dtype)
    model = copy.deepcopy(dense)
    limits = METHODS[method].limits(shape_of(dense.conv3))
    factorize_(model, Plan({"conv3": Choice(method, limits)}), moments(dense, [x], ["conv3"]))
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    # Three roundings of weights and two of activations; 1e-5 is what the ridge of a fit may leave.
    assert distance(model, dense, x) < 8 * torch.finfo(dtype).eps + 1e-5


def test_moments_are_those_of_what_enters(dtype):
    conv, x = nn.Conv2d(3, 4, 3, dtype=dtype), 3 + images(16, dtype)
    rows = nn.functional.unfold(x.double(), 3).movedim(1, 2).reshape(-1, 27)
    found = moments(nn.Sequential(conv), x.split(5), ["0"])["0"]
    assert found.second.dtype == found.mean.dtype == torch.float64
    torch.testing.assert_close(found.second, rows.T @ rows / len(rows), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.mean, rows.mean(0), rtol=1e-6, atol=0)


def test_repair_brings_the_outputs_nearer(tiny, dtype):
    dense, batches = tiny.to(dtype), [images(48, dtype), images(48, dtype, seed=2)]
    model = copy.deepcopy(dense)
    factorize_(model, PLAN, moments(dense, batches, list(PLAN.choices)))
    before = distance(model, dense, torch.cat(batches))
    report = repair_(model, PLAN, Reference.of(dense, list(PLAN.choices), batches))
    assert report.refitted
    assert report.error_after < report.error_before
    assert distance(model, dense, torch.cat(batches)) < before
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


def test_small_errors_count_where_their_squares_are_no_float16():
    dense = nn.Sequential(nn.Linear(8, 8, dtype=torch.float16))
    with torch.no_grad():
        dense[0].weight.mul_(1e-4)
        dense[0].bias.zero_()
    model, plan = copy.deepcopy(dense), Plan({"0": Choice("svd", (4,))})
    factorize_(model, plan)
    batches = [torch.randn(64, 8).half()]
    assert repair_(model, plan, Reference.of(dense, ["0"], batches)).error_before > 0


def test_a_result_gives_the_same_network(tmp_path, tiny, tiny_architecture, dtype):
    model, x = tiny.to(dtype), images(4, dtype)
    factorize_(model, PLAN)
    write_result(
        tmp_path,
        model,
        PLAN,
        architecture=tiny_architecture,
        input_shape=(3, 8, 8),
        evidence={},
        example=x,
        programs=(),
    )
    assert torch.equal(load(tmp_path)(x), model(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_program_may_differ_by_a_few_round_offs(tiny, tmp_path, monkeypatch, dtype):
    model, x, path = tiny.to(dtype), images(4, dtype), tmp_path / "model.pt2"
    monkeypatch.setattr("compress.export.parity", lambda *_: 2 * torch.finfo(dtype).eps)
    export_program(model, x, path)
    program = torch.export.load(path).module()
    assert distance(program, model, x) <= 4 * torch.finfo(dtype).eps
