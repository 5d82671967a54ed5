import sys

import pytest
import torch
from safetensors.torch import save_file

from compress.architectures import build, describe, from_weights, infer_arguments
from compress.catalog import EXAMPLES
from compress.errors import ArchitectureError, WeightsError
from compress.load import build_dense


def shapes_of(model):
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


@pytest.fixture
def shuffled():
    """A torchvision network whose every value, running statistics too, is its own."""
    model = build("shufflenet_v2_x0_5", {"num_classes": 7})
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1) if "running_var" in key else tensor.normal_(0, 0.1)
    return model


def test_an_unknown_name_lists_those_that_are_close():
    with pytest.raises(ArchitectureError, match=r"'resnet81' came.*resnet18"):
        build("resnet81")
    with pytest.raises(ArchitectureError, match=r"compress/catalog\.py"):
        build("hf-hub:someone/something")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("alexnet", {"num_classes": 3}),
        ("squeezenet1_1", {"num_classes": 3}),
        ("googlenet", {"num_classes": 3, "aux_logits": True}),
        ("googlenet", {"num_classes": 3, "aux_logits": False}),
        ("inception_v3", {"num_classes": 3, "aux_logits": True}),
        ("regnet_y_400mf", {"num_classes": 3}),
        ("vit_b_32", {"num_classes": 3}),
        ("convnext_tiny", {"num_classes": 1000}),
        ("timm/resnet18", {"num_classes": 3, "in_chans": 1}),
        ("timm/tresnet_m", {"num_classes": 3, "in_chans": 4}),
        ("timm/deit_tiny_distilled_patch16_224", {"num_classes": 3}),
    ],
    ids=str,
)
def test_the_arguments_are_read_off_the_shapes(name, arguments):
    shapes = shapes_of(build(name, arguments))
    assert infer_arguments(name, shapes) == arguments
    assert shapes_of(build_dense(describe(name, arguments))) == shapes


def test_weights_come_back_as_they_were(shuffled, tmp_path):
    save_file(shuffled.state_dict(), tmp_path / "w.safetensors")
    model = from_weights("shufflenet_v2_x0_5", tmp_path / "w.safetensors")
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(model(x), shuffled(x))
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_an_example_needs_no_torchvision_registry(tmp_path):
    model = build("digits_cnn")
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    assert describe("digits_cnn")["rows"] == [list(row) for row in EXAMPLES["digits_cnn"]]
    x = torch.randn(2, 1, 32, 32)
    assert torch.equal(from_weights("digits_cnn", tmp_path / "w.safetensors")(x), model(x))


def test_the_prefix_of_data_parallel_is_taken_off_once(shuffled, tmp_path):
    state = {f"module.{key}": tensor for key, tensor in shuffled.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    model = from_weights("shufflenet_v2_x0_5", tmp_path / "w.safetensors")
    assert torch.equal(model.fc.weight, shuffled.fc.weight)
    save_file(
        {f"module.{key}": tensor for key, tensor in state.items()}, tmp_path / "w.safetensors"
    )
    with pytest.raises(
        WeightsError, match=r"module\.fc\.weight is left over|fc\.weight is missing|and \d+ more"
    ):
        from_weights("shufflenet_v2_x0_5", tmp_path / "w.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_another_floating_dtype_becomes_that_of_the_architecture(shuffled, tmp_path, dtype):
    state = {
        key: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for key, tensor in shuffled.state_dict().items()
    }
    save_file(state, tmp_path / "w.safetensors")
    model = from_weights("shufflenet_v2_x0_5", tmp_path / "w.safetensors")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.fc.weight, state["fc.weight"].float())


def _remove(state):
    del state["fc.bias"]


def _add(state):
    state["fc.scale"] = torch.ones(1)


def _reshape(state):
    state["conv1.0.weight"] = torch.zeros(24, 3, 5, 5)


def _count(state):
    state["fc.bias"] = torch.zeros(7, dtype=torch.int64)


def _poison(state):
    state["fc.bias"][2] = torch.nan


def _overflow(state):
    state["fc.bias"] = torch.full((7,), 1e300, dtype=torch.float64)


def _negate(state):
    state["conv1.1.running_var"][0] = -1e-3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove, r"fc\.bias is missing"),
        (_add, r"fc\.scale is left over"),
        (_reshape, r"conv1\.0\.weight has shape \(24, 3, 5, 5\), \(24, 3, 3, 3\) was wanted"),
        (_count, r"fc\.bias has torch\.int64, torch\.float32 was wanted"),
        (_poison, r"fc\.bias has 1 values that are not finite"),
        (_overflow, r"fc\.bias has 7 values that are not finite"),
        (_negate, r"conv1\.1\.running_var has negative variances"),
    ],
)
def test_weights_that_do_not_fit_are_named(shuffled, tmp_path, damage, message):
    state = shuffled.state_dict()
    damage(state)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=message):
        from_weights("shufflenet_v2_x0_5", tmp_path / "w.safetensors")


def test_ten_differences_are_named_and_the_rest_counted(shuffled, tmp_path):
    keys = list(shuffled.state_dict())
    state = {key: tensor for key, tensor in shuffled.state_dict().items() if key not in keys[:13]}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="and 3 more") as caught:
        from_weights("shufflenet_v2_x0_5", tmp_path / "w.safetensors")
    assert str(caught.value).count("is missing") == 10


def test_a_malformed_file_is_an_error_of_its_own(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"not a safetensors file")
    with pytest.raises(WeightsError, match="a header of"):
        from_weights("alexnet", tmp_path / "w.safetensors")


def test_every_tensor_that_does_not_fit_is_in_the_error(shuffled, tmp_path):
    state = {key: tensor for key, tensor in shuffled.state_dict().items() if "conv1" not in key}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError) as caught:
        from_weights("shufflenet_v2_x0_5", tmp_path / "w.safetensors")
    missing = {key for key in shuffled.state_dict() if "conv1" in key}
    assert {line.partition(" ")[0] for line in caught.value.differences} == missing


def test_buffers_that_no_state_dict_holds_have_their_values(tmp_path):
    """LeViT of timm counts relative positions in a buffer of its own."""
    name, arguments = "timm/levit_128s", {"num_classes": 3}
    network = build(name, arguments)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    found = from_weights(name, tmp_path / "w.safetensors")
    assert not any(buffer.is_meta for buffer in found.buffers())
    x = torch.randn(1, 3, 224, 224)
    assert torch.equal(found(x), network(x))


@pytest.mark.parametrize(
    "architecture",
    [
        {"registry": "timm", "name": "hf-hub:someone/something", "arguments": {}},
        {"registry": "timm", "name": "local-dir:/tmp", "arguments": {}},
        {"registry": "timm", "name": "resnet18.a1_in1k", "arguments": {}},
        {"registry": "timm", "name": "resnet18", "arguments": {"checkpoint_path": "/tmp/x.pth"}},
    ],
    ids=str,
)
def test_nothing_but_a_listed_network_is_asked_of_timm(architecture):
    with pytest.raises(ValueError, match="timm has no network"):
        build_dense(architecture)


def test_a_registry_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ArchitectureError, match=r"timm/resnet18 needs timm"):
        build("timm/resnet18")
