import contextlib
import copy
import json
import random
import signal
import subprocess

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compress import confinement
from compress.errors import ProgramError
from compress.program.child import ProgramReport, try_in_child
from compress.program.operators import ATEN
from compress.program.read import examine, read_program
from tests.compress.programs import (
    CONSTANTS,
    MODEL,
    WEIGHTS,
    changed,
    graph_of,
    members,
    pack,
    write,
)


class Folding(nn.Module):
    """(N, 8) -> (N, 2): a shape with the batch in it, one constant of its own, a computed size."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.layer = nn.Linear(8, 2)

    def forward(self, x):
        parts = self.norm(x.view(x.shape[0] * 2, 4)).view(x.shape[0], 8)
        return self.layer(parts * torch.tensor(0.5)) + torch.zeros(x.shape[0], 1)


X = torch.randn(2, 8)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write(Folding().eval(), [X], tmp_path_factory.mktemp("trial") / "model.pt2")


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    """For batches of 2 alone."""
    path = tmp_path_factory.mktemp("trial") / "fixed.pt2"
    return write(Folding().eval(), [X], path, dynamic=False)


def test_what_a_batch_holds_is_known_before_it_runs(archive):
    report = examine(archive)
    # Three inputs of 8 floats and their normalised copies; the latter, scaled, and the constant.
    most = 3 * 8 * 4
    assert 2 * most <= report.activation_bytes <= 3 * most
    assert report == ProgramReport((1, 8), "float32", (1, 2), report.activation_bytes)


def test_activations_are_capped_without_being_made(archive, tmp_path):
    def edit(document):
        graph_of(document)["tensor_values"]["x"]["sizes"][1] = {"as_int": 2**30}

    path = changed(archive, tmp_path / "large.pt2", edit=edit)
    with pytest.raises(ProgramError, match="with the inputs, a small batch holds 4294967296 "):
        read_program(path, max_activation_bytes=2**31)
    with pytest.raises(ProgramError, match=r"holds 1\d\d bytes, at most 100 were wanted"):
        read_program(archive, max_activation_bytes=100)


def padded(document):
    """A node that makes 2^44 values of a few."""
    for node in graph_of(document)["nodes"]:
        if node["target"] == f"{ATEN}zeros.default":
            node["inputs"][0]["arg"] = {"as_ints": [2**22, 2**22]}


def test_the_node_that_makes_too_much_is_named(archive, tmp_path):
    with pytest.raises(ProgramError, match=r"node 'zeros' .* holds 70368744177\d+ bytes"):
        read_program(changed(archive, tmp_path / "large.pt2", edit=padded))


def test_a_program_for_one_batch_size_is_refused_with_advice(fixed):
    with pytest.raises(
        ProgramError, match=r"exported for a first axis of 2.*dynamic_shapes"
    ) as caught:
        read_program(fixed)
    assert str(caught.value).startswith(f"node 'view' ({ATEN}view.default) fails for a batch of 1")


def test_a_program_for_one_batch_size_that_takes_any_is_read(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2)).eval()
    found = read_program(write(model, [torch.zeros(2, 3, 4, 4)], tmp_path / "a.pt2", dynamic=False))
    x = torch.randn(5, 3, 4, 4)
    assert torch.equal(found(x), model(x))


class Whole(nn.Module):
    def forward(self, x):
        return x.sum(0, keepdim=True)


class Nothing(nn.Module):
    def forward(self, x):
        return x[:, :0]


class Mixing(nn.Module):
    """Each result is that of the whole batch."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 2)

    def forward(self, x):
        return self.layer(x - x.mean(0))


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls.add_(1)
        return x + self.calls


class Endless(nn.Module):
    def forward(self, x):
        return x / 0


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Whole(), r"a batch of 3 gives results of shape \[1, 8\]: one entry for each"),
        (Nothing(), r"gives results of shape \[1, 0\]"),
        (Mixing(), "depends on the rest of its batch"),
        (Counting(), "writes into its own tensors"),
        (Endless(), "NaN or infinity"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_network_that_cannot_be_evaluated_is_refused(tmp_path, model, message):
    path = write(model.eval(), [X], tmp_path / "model.pt2")
    with pytest.raises(ProgramError, match=message):
        examine(path)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 4)
        self.recurrent = nn.LSTM(4, 3, batch_first=True)

    def forward(self, x):
        return self.recurrent(self.embed(x))[0]


@pytest.mark.parametrize(
    ("operator", "argument", "value"),
    [
        ("lstm.input", "params", {"as_int": 3}),
        ("lstm.input", "params", {"as_none": True}),
        ("lstm.input", "num_layers", {"as_int": 10**9}),
        ("lstm.input", "hx", {"as_ints": [1, 2]}),
        ("embedding.default", "weight", {"as_float": 0.5}),
        ("embedding.default", "indices", {"as_string": "0"}),
    ],
)
def test_arguments_that_no_layer_takes_are_refused(tmp_path, operator, argument, value):
    def edit(document):
        nodes = graph_of(document)["nodes"]
        (node,) = (node for node in nodes if node["target"] == ATEN + operator)
        for entry in node["inputs"]:
            if entry["name"] == argument:
                entry["arg"] = value

    path = write(Recurrent().eval(), [torch.zeros(2, 5, dtype=torch.int64)], tmp_path / "a.pt2")
    with pytest.raises(
        ProgramError, match=f"{operator}.*(fails for a batch of 1|1000000000 layers)"
    ):
        read_program(changed(path, tmp_path / "b.pt2", edit=edit))


def unknown_argument(nodes):
    nodes["linear"]["inputs"][0]["name"] = "inputs"


def missing_argument(nodes):
    nodes["linear"]["inputs"].pop(1)


def wrong_type(nodes):
    nodes["view"]["inputs"][1]["arg"] = {"as_string": "eight"}


def division_by_nothing(nodes):
    nodes["mul"]["target"] = "_operator.floordiv"
    nodes["mul"]["inputs"][1]["arg"] = {"as_int": 0}


def a_size_that_grows(nodes):
    nodes["mul"]["inputs"][1]["arg"] = {"as_int": 2**62 + 1}


def another_shape(nodes):
    nodes["view_1"]["inputs"][1]["arg"] = {"as_ints": [7, 7]}


def wrong_count(nodes):
    nodes["linear"]["outputs"].append({"as_tensor": {"name": "more"}})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (unknown_argument, "there is no argument 'inputs'"),
        (missing_argument, "argument 'weight' is missing"),
        (wrong_type, r"node 'view' .* fails for a batch of 1"),
        (division_by_nothing, "node 'mul.*ZeroDivisionError"),
        (a_size_that_grows, "node 'mul.*OverflowError: a size of 6. bits"),
        (another_shape, "node 'view_1' .* fails for a batch of 1"),
        (wrong_count, "node 'linear' .* fails for a batch of 1"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_call_that_fails_names_its_node(archive, tmp_path, caplog, edit, message):
    def edit_nodes(document):
        nodes = {}
        for node in graph_of(document)["nodes"]:
            name = node["outputs"][0].get("as_tensor", {}).get("name")
            nodes[name or node["target"].rpartition(".")[2]] = node
        edit(nodes)

    with pytest.raises(ProgramError, match=message) as caught:
        read_program(changed(archive, tmp_path / "changed.pt2", edit=edit_nodes))
    assert "linear" in message + str(caught.value) + str(
        getattr(caught.value, "__notes__", "linear")
    )
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


NASTY = [
    None, True, -1, 0, 1, 3, 2**31, 2**62, 1.5, "", "x", "Infinity", "as_none",
    f"{ATEN}mul.Tensor", f"{ATEN}expand.default", f"{ATEN}pad.default", "_operator.mul",
    [], {}, [0], {"as_int": 0}, {"as_int": -5}, {"as_int": 2**33}, {"as_none": True},
]  # fmt: skip


def places(document, place=()):
    """The ways to every value in a document."""
    children = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in children:
        yield (*place, key)
        if isinstance(value, dict | list):
            yield from places(value, (*place, key))


def at(document, place):
    for key in place:
        document = document[key]
    return document


@settings(max_examples=150, deadline=None)
@given(member=st.sampled_from([MODEL, MODEL, WEIGHTS, CONSTANTS]), seed=st.integers(0, 2**32))
def test_any_change_of_a_document_is_read_or_refused(archive, tmp_path_factory, member, seed):
    chance = random.Random(seed)
    contents = members(archive)
    document = json.loads(contents[member])
    for _ in range(chance.choice([1, 1, 2])):
        found = [place for place in places(document) if "metadata" not in place]
        place, other = chance.choices(found, k=2) if found else (("added",), ())
        value = chance.choice(NASTY) if chance.random() < 0.6 else at(document, other)
        at(document, place[:-1])[place[-1]] = copy.deepcopy(value)
    path = pack(contents | {member: json.dumps(document)}, tmp_path_factory.mktemp("any") / "a.pt2")
    with contextlib.suppress(ProgramError):
        model = read_program(path)
        assert {"norm.weight", "layer.bias"} & model.state_dict().keys()


def test_a_network_is_tried_in_a_process_of_its_own(archive):
    assert try_in_child(archive) == examine(archive)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"seconds": 0.01}, "not done after 0.01 s"),
        ({"memory_bytes": 1 << 20}, "takes more than 1048576 bytes"),
    ],
)
def test_the_process_has_limits(archive, limits, message):
    with pytest.raises(ProgramError, match=message):
        try_in_child(archive, **limits)


def test_the_process_says_what_is_wrong(archive, tmp_path):
    path = changed(archive, tmp_path / "changed.pt2", edit=padded)
    with pytest.raises(ProgramError, match="node 'zeros'"):
        try_in_child(path)


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        (subprocess.CompletedProcess([], -signal.SIGSEGV, "", ""), "ended with code -11"),
        (subprocess.CompletedProcess([], -signal.SIGXCPU, "", ""), "not done after 300 s"),
        (subprocess.TimeoutExpired([], 1), "not done after 300 s"),
    ],
)
def test_a_process_that_breaks_is_told(archive, monkeypatch, ending, message):
    def run(*_, **__):
        if isinstance(ending, Exception):
            raise ending
        return ending

    monkeypatch.setattr(confinement.subprocess, "run", run)
    with pytest.raises(ProgramError, match=message):
        try_in_child(archive)


def test_the_process_knows_no_settings(archive, monkeypatch):
    seen = {}

    def run(command, *, env, **_):
        seen.update(env)
        return subprocess.CompletedProcess(command, 1, "", "")

    monkeypatch.setenv("RANKSEARCH_DATABASE_URL", "postgresql://someone:secret@somewhere/db")
    monkeypatch.setattr(confinement.subprocess, "run", run)
    with pytest.raises(ProgramError, match="ended with code 1"):
        try_in_child(archive)
    assert "PATH" in seen
    assert not any("secret" in value for value in seen.values())
