"""Inputs that are no pictures: sequences, token ids, several at once."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compress.batch import Batch, accept_batches_
from search.config import Budget, Objective, SearchConfig
from search.data.arrays import Arrays
from search.data.declaration import Declaration
from search.data.files import read_arrays
from search.errors import DataError
from search.subject import Subject

COUNT = 40


def tokens(count=COUNT):
    return torch.randint(0, 9, (count, 7), generator=torch.Generator().manual_seed(0))


class Reader(nn.Module):
    """Embeds tokens, weighs them by a mask, and classifies."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 12)
        self.hidden = nn.Linear(12, 32)
        self.classify = nn.Linear(32, 4)

    def forward(self, tokens, mask):
        return self.classify(self.hidden(self.embed(tokens)).relu().mul(mask[..., None]).mean(1))


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "i4", "i8"])
def test_token_ids_of_any_width_reach_the_network_as_int64(tmp_path, dtype):
    ids = tokens().numpy().astype(dtype)
    np.savez(tmp_path / "a.npz", tokens=ids, labels=np.arange(COUNT) % 3)
    arrays = read_arrays(tmp_path / "a.npz", Declaration(inputs=("tokens",)))
    given = arrays.batch(torch.tensor([5, 0]))
    assert given.dtype == torch.int64
    assert given.tolist() == ids[[5, 0]].tolist()


def test_sequences_reach_the_network_as_they_are(tmp_path):
    x = np.random.default_rng(0).normal(size=(COUNT, 6, 3))
    np.save(tmp_path / "x.npy", x)
    arrays = read_arrays(tmp_path / "x.npy", Declaration(inputs=("signal",)))
    assert arrays.input_shapes == {"signal": (6, 3)}
    assert np.array_equal(arrays.batch(torch.arange(COUNT)), x.astype("f4"))
    assert arrays.labels is None


def test_an_npy_file_holds_images_unless_another_name_is_declared(tmp_path):
    images = np.zeros((COUNT, 1, 4, 4), "u1")
    np.save(tmp_path / "x.npy", images + 255)
    assert read_arrays(tmp_path / "x.npy").batch(torch.tensor([0])).max() == 1.0


def test_several_inputs_come_in_the_order_that_is_declared(tmp_path):
    mask = tokens() > 2
    save_file({"a": mask, "b": tokens(), "train_a": ~mask, "train_b": tokens()}, tmp_path / "x")
    arrays = read_arrays(tmp_path / "x", Declaration(inputs=("b", "a")))
    batch = arrays.batch(torch.arange(3), train=True)
    assert isinstance(batch, Batch)
    assert torch.equal(batch.tensors[0], tokens()[:3])
    assert torch.equal(batch.tensors[1], ~mask[:3])


def test_a_batch_stands_where_a_tensor_does():
    batch = Batch([tokens(), torch.arange(COUNT)])
    assert (len(batch), len(batch[:5]), batch.ndim) == (COUNT, 5, 0)
    assert batch[torch.tensor([3, 1])].tensors[1].tolist() == [3, 1]


def test_a_network_that_accepts_batches_answers_as_before():
    network = Reader().eval()
    ids, mask = tokens(), torch.ones(COUNT, 7)
    wanted = network(ids, mask)
    accept_batches_(network)
    assert torch.equal(network(Batch([ids, mask])), wanted)
    assert torch.equal(network(ids, mask), wanted)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "at least one"),
        ({"t": tokens(), "m": tokens(3)}, "as many"),
        ({"t": tokens().int()}, "int32"),
        ({"t": torch.zeros(COUNT, 2).double()}, "float64"),
        ({"t": torch.zeros(COUNT, 0)}, r"\(40, 0\)"),
        ({"t": torch.full((COUNT, 2), torch.inf)}, "not finite"),
    ],
    ids=str,
)
def test_inputs_that_cannot_be_meant_are_refused(wrong, message):
    with pytest.raises(DataError, match=message):
        Arrays(inputs=wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"inputs": ()}, "1 to 8 names"),
        ({"inputs": ("a", "a")}, "1 to 8 names"),
        ({"inputs": ("labels",)}, "'labels'"),
        ({"inputs": ("train_a",)}, "'train_a'"),
        ({"inputs": ("../a",)}, r"'\.\./a'"),
        ({"inputs": ("a",), "mean": (0.5,)}, r"mean and std are for images"),
        ({"mean": (float("nan"),)}, "finite"),
    ],
    ids=str,
)
def test_a_declaration_that_cannot_be_meant_is_refused(wrong, message):
    with pytest.raises(DataError, match=message):
        Declaration(**wrong)


def test_training_inputs_are_those_of_the_network(tmp_path):
    np.savez(tmp_path / "a.npz", a=tokens(), b=tokens(), train_a=tokens())
    with pytest.raises(DataError, match=r"training inputs \['a'\] came, \['a', 'b'\]"):
        read_arrays(tmp_path / "a.npz", Declaration(inputs=("a", "b")))


def test_a_network_of_two_inputs_is_measured_and_factorised():
    torch.manual_seed(0)
    network = Reader()
    arrays = Arrays(inputs={"tokens": tokens(120), "mask": torch.rand(120, 7)})
    budget = Budget(max_loss=5, unit="points", metric="agreement")
    config = SearchConfig(budget=budget, objective=Objective(device="cpu", batch=3))
    subject = Subject.prepare(network, arrays, config, {})
    assert subject.baseline.macs == 7 * 12 * 32 + 32 * 4
    assert len(subject.example) == 3
    ids, mask = subject.search.inputs(0, 5).tensors
    assert torch.equal(subject.search.dense_answers[:5], network.eval()(ids, mask))
