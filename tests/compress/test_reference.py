import pytest
import torch
from torch import nn

from compress.reference import Reference


@pytest.fixture
def dense():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten()).train()


def test_samples_are_outputs_at_their_positions(dense, monkeypatch):
    monkeypatch.setattr("compress.reference.ROWS", 40)
    batches = torch.randn(7, 1, 8, 8).split(4)
    found = Reference.of(dense, ["0", "2"], batches)
    assert dense.training
    for batch, answer, sample in zip(batches, found.answers, found.samples["2"], strict=True):
        with torch.no_grad():
            outputs = dense[:3](batch).movedim(1, -1)
            assert torch.equal(answer, dense(batch))
        assert torch.equal(sample.outputs, outputs[sample.index])
    assert sum(len(sample.fold) for sample in found.samples["2"]) == pytest.approx(40, abs=1)
    folds = [sample.fold - sample.index[0] for sample in found.samples["2"]]
    assert all(torch.all(fold % 2 == 0) for fold in folds)  # the first batch has an even number


def test_what_is_sampled_of_a_layer_does_not_depend_on_the_others(dense, monkeypatch):
    monkeypatch.setattr("compress.reference.ROWS", 40)
    batches = torch.randn(8, 1, 8, 8).split(4)
    alone = Reference.of(dense, ["2"], batches).samples["2"]
    beside = Reference.of(dense, ["0", "2"], batches).samples["2"]
    assert all(torch.equal(a.outputs, b.outputs) for a, b in zip(alone, beside, strict=True))


def test_layers_that_are_never_called_have_no_samples(dense):
    dense[1].spare = nn.Linear(3, 3)
    found = Reference.of(dense, ["0", "1.spare"], [torch.randn(2, 1, 8, 8)])
    assert set(found.samples) == set(found.calls) == {"0"}
