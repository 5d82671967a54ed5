import copy

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from compress.checkpoint import restore, write_safetensors
from compress.errors import PlanError, RankError, UnsupportedLayerError, WeightsError
from compress.plan import Choice, Plan
from compress.surgery import factorize_, is_factorized

PLAN = Plan({"conv2": Choice("svd", (4,)), "classify": Choice("svd", (3,))})


def test_a_network_comes_back_from_its_plan_and_its_weights(tmp_path, tiny, tiny_architecture):
    factorize_(tiny, PLAN)
    write_safetensors(tmp_path / "w.safetensors", tiny.state_dict())
    restored = restore(tiny_architecture, PLAN, tmp_path / "w.safetensors")
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(restored(x), tiny(x))
    assert {n for n, m in restored.named_modules() if is_factorized(m)} == set(PLAN.choices)
    assert not restored.training


def test_equal_networks_give_equal_files(tmp_path, tiny):
    write_safetensors(tmp_path / "a", tiny.state_dict())
    write_safetensors(
        tmp_path / "b", copy.deepcopy(tiny).to(memory_format=torch.channels_last).state_dict()
    )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_safetensors_library_reads_what_we_write(tmp_path, tiny):
    write_safetensors(tmp_path / "w", tiny.state_dict())
    read, state = load_file(tmp_path / "w"), tiny.state_dict()
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], value) for key, value in state.items())


def test_a_tied_tensor_is_written_under_both_names(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    model.register_buffer("part", model[0].weight.detach()[1:])
    write_safetensors(tmp_path / "w", model.state_dict())
    read = load_file(tmp_path / "w")
    assert torch.equal(read["0.weight"], model[0].weight)
    assert torch.equal(read["1.weight"], model[0].weight)
    assert torch.equal(read["part"], model[0].weight[1:])
    assert model[1].weight is model[0].weight


@pytest.fixture
def written(tmp_path, tiny):
    """The weights of the network that PLAN has factorised."""
    factorize_(tiny, PLAN)
    write_safetensors(tmp_path / "w", tiny.state_dict())
    return tmp_path / "w"


@pytest.mark.parametrize(
    ("plan", "error", "message"),
    [
        (Plan({"conv2": Choice("svd", (4,))}), WeightsError, r"classify\.weight"),
        (Plan({**PLAN.choices, "conv2": Choice("svd", (5,))}), WeightsError, r"conv2\."),
        (Plan({**PLAN.choices, "conv2": Choice("svd", (5000,))}), RankError, "5000"),
        (Plan({"relu1": Choice("svd", (5,))}), UnsupportedLayerError, "ReLU"),
        (Plan({"nothing": Choice("svd", (5,))}), PlanError, "no layer 'nothing'"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(written, tiny_architecture, plan, error, message):
    with pytest.raises(error, match=message):
        restore(tiny_architecture, plan, written)


def test_a_malformed_file_is_refused(tmp_path, tiny_architecture):
    (tmp_path / "w").write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match="a header of"):
        restore(tiny_architecture, Plan(), tmp_path / "w")
