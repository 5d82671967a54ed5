import copy

import torch
from safetensors.torch import load_file
from torch import nn

from compress.checkpoint import write_safetensors


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
