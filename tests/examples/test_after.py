"""What a user may do with a result: quantise it, train it, take its weights elsewhere."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from torch import nn

from compress import load as loading
from compress.artifact import write_result
from compress.calibration import moments
from compress.errors import UnsupportedLayerError
from compress.layers import inspect
from compress.load import build_sequential, read_safetensors
from compress.onnx.session import Session
from compress.plan import Choice, Plan
from compress.surgery import factorize_
from examples.after.quantise_graph import BATCH, Images, quantise
from examples.after.quantise_layers import quantise_
from examples.after.tune import tune_
from tests.search.subjects import SMALL_ARCHITECTURE, SMALL_ROWS, small

PLAN = Plan({"conv2": Choice("tucker2", (4, 4)), "classify": Choice("svd", (3,))})
IMAGES = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    model = small()
    factorize_(model, PLAN, moments(model, [IMAGES], PLAN.choices))
    folder = tmp_path_factory.mktemp("result")
    write_result(
        folder,
        model,
        PLAN,
        architecture=SMALL_ARCHITECTURE,
        input_shape=(3, 8, 8),
        evidence={},
        example=IMAGES[:1],
        programs=["model.onnx"],
    )
    return folder


@pytest.fixture
def network(result):
    """As a stranger loads it: by the file that came with it, whose classes are its own."""
    spec = importlib.util.spec_from_file_location("shipped", result / "load.py")
    shipped = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shipped)
    assert shipped.FactorizedLayer is not loading.FactorizedLayer
    return shipped.load(result)


def relative(came, wanted):
    return float((came - wanted).abs().max() / wanted.abs().max())


def test_onnxruntime_s_static_quantiser_takes_the_graph(result, network):
    path = quantise(result, IMAGES.numpy())
    assert path.stat().st_size < (result / "model.onnx").stat().st_size + 8_000
    with torch.no_grad():
        assert 0 < relative(Session(path)(IMAGES), network(IMAGES)) < 0.1


def test_torchao_quantises_the_stages_of_linear_layers(network):
    with torch.no_grad():
        wanted = network(IMAGES)
        quantise_(network)
        assert 0 < relative(network(IMAGES), wanted) < 0.1
    kinds = {name: type(layer.weight).__name__ for name, layer in linears(network)}
    assert set(kinds) == {"classify.reduce", "classify.expand"}
    assert set(kinds.values()) == {"Int8Tensor"}


def linears(network):
    return [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear)]


def test_it_trains_further_and_every_factor_learns(network):
    labels = torch.arange(64) % 5
    before = {key: value.clone() for key, value in network.state_dict().items()}
    first = tune_(network, IMAGES, labels, epochs=1, rate=1e-2)
    assert tune_(network, IMAGES, labels, epochs=8, rate=1e-2) < first
    assert not network.training
    for key, _ in network.named_parameters():
        assert not torch.equal(network.state_dict()[key], before[key]), key


def test_its_weights_load_into_a_factorised_copy_of_the_user_s_own_class(result, network):
    manifest = json.loads((result / "manifest.json").read_text())
    own = build_sequential(SMALL_ROWS).eval()
    names = set(own.state_dict())
    factorize_(own, Plan.from_json(json.dumps(manifest["plan"])))
    weights = read_safetensors(result / "model.safetensors")
    own.load_state_dict(weights)
    with torch.no_grad():
        assert torch.equal(own(IMAGES), network(IMAGES))
    dense = {key for key in names if key.split(".")[0] not in PLAN.choices}
    assert dense <= set(weights)


def test_what_is_factorised_is_not_factorised_again(network):
    reasons = {report.name: report.reason for report in inspect(network)}
    for name in PLAN.choices:
        assert reasons[name] == "it is factorised already"
        assert not [other for other in reasons if other.startswith(f"{name}.")]
    with pytest.raises(UnsupportedLayerError, match="factorised already"):
        factorize_(network, PLAN)


def test_images_are_handed_over_once_in_batches():
    reader = Images(np.zeros((BATCH + 1, 1, 2, 2), np.float32))
    assert [len(batch["input"]) for batch in iter(reader.get_next, None)] == [BATCH, 1]
