"""A network that came as a program, described, and built again by files that stand alone."""

import copy
import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from compress.artifact import write_result
from compress.load import build_dense
from compress.plan import Choice, Plan
from compress.program.operators import OPERATORS
from compress.program.read import read_program
from compress.program.steps import build, document_of
from compress.surgery import factorize_
from tests.compress.programs import write
from tests.compress.test_program_read import WORDS, Attention, Everything, Recurrent

CASES = {
    "everything": (Everything, torch.randn(2, 3, 8, 8)),
    "attention": (Attention, torch.randn(2, 5, 8)),
    "lstm": (lambda: Recurrent(nn.LSTM, num_layers=2), WORDS),
}
OUTSIDER = """
import importlib.util, sys, torch
spec = importlib.util.spec_from_file_location("load", sys.argv[1] + "/load.py")
load = importlib.util.module_from_spec(spec)
spec.loader.exec_module(load)
model = load.load(sys.argv[1])
x, wanted = torch.load(sys.argv[1] + "/../pair")
with torch.no_grad():
    assert torch.equal(model(x), wanted)
model.train()(x).sum().backward()
assert all(p.grad is not None for p in model.parameters())
assert not {"compress", "tests"} & sys.modules.keys()
"""


@pytest.fixture(scope="module", params=CASES)
def read(request, tmp_path_factory):
    """The network that was exported, the one that was read, and an input."""
    make, x = CASES[request.param]
    torch.manual_seed(0)
    network = make()
    network(x)  # layers that wait for their first input
    path = write(network.eval(), (x,), tmp_path_factory.mktemp("program") / "model.pt2")
    return network, read_program(path), x


def through_json(document):
    return json.loads(json.dumps(document, allow_nan=False))


def test_the_description_builds_the_network(read):
    network, program, x = read
    built = build_dense(through_json(document_of(program)))
    assert built.state_dict().keys() == network.state_dict().keys()
    assert {n: type(m) for n, m in built.named_modules() if n} == {
        n: type(m) for n, m in program.named_modules() if n
    }
    built.load_state_dict(program.state_dict())
    for name, tensor in program.named_buffers():
        built.get_buffer(name).copy_(tensor)
    assert torch.equal(built(x), network(x))


def test_a_result_loads_where_nothing_of_ours_is(read, tmp_path):
    _, program, x = read
    found = copy.deepcopy(program)
    names = [n for n, m in program.named_modules() if type(m) is nn.Linear]
    plan = Plan({names[-1]: Choice("svd", (2,))}) if names else Plan()
    factorize_(found, plan)
    write_result(
        tmp_path / "result",
        found,
        plan,
        architecture=document_of(program),
        input_shape=x.shape[1:],
        evidence={},
        example=x,
        programs=(),
    )
    with torch.no_grad():
        torch.save((x, found(x)), tmp_path / "pair")
    done = subprocess.run(
        [sys.executable, "-I", "-c", OUTSIDER, str(tmp_path / "result")],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_layer_under_two_names_stays_one(tmp_path):
    layer = nn.Linear(4, 4)
    network = nn.Sequential(layer, nn.ReLU(), layer).eval()
    x = torch.randn(2, 4)
    program = read_program(write(network, (x,), tmp_path / "model.pt2"))
    built = build_dense(through_json(document_of(program)))
    assert built.get_submodule("0") is built.get_submodule("2")
    assert sum(p.numel() for p in built.parameters()) == 20


class Tied(nn.Module):
    """A weight of two layers of different kinds."""

    def __init__(self):
        super().__init__()
        self.embed, self.answer = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
        self.answer.weight = self.embed.weight

    def forward(self, x):
        return self.answer(self.embed(x).mean(1))


def test_a_weight_of_two_layers_stays_one(tmp_path):
    x = torch.randint(9, (2, 3))
    program = read_program(write(Tied().eval(), (x,), tmp_path / "model.pt2"))
    built = build_dense(through_json(document_of(program)))
    assert built.embed.weight is built.answer.weight


def changed(document, **parts):
    return through_json(document) | parts


STEP = {"args": [], "kwargs": {}, "results": [], "unpacked": False, "frees": []}
LAYER = {"names": ["a"], "kind": "Linear", "settings": {}, "dtype": None, "absent": []}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"steps": [STEP | {"operator": "torch.ops.aten.from_file.default"}]}, "from_file"),
        ({"steps": [STEP | {"operator": "os.system"}]}, "os.system"),
        ({"layers": [LAYER | {"kind": "Module"}]}, "a 'Module'; known are"),
        ({"outputs": [{"dtype": "load"}]}, "'load' is no dtype"),
        ({"outputs": [{"memory_format": "save"}]}, "'save' is no memory format"),
    ],
)
def test_what_a_description_may_not_name(read, parts, message):
    with pytest.raises(ValueError, match=message):
        build(changed(document_of(read[1]), **parts), OPERATORS)


@pytest.mark.parametrize("name", ["forward", "training", "_modules.a"])
def test_a_name_of_torchs_own_is_refused(read, name):
    tensor = {"name": name, "shape": [1], "dtype": "float32", "kind": "buffer"}
    with pytest.raises((KeyError, AttributeError)):
        build(changed(document_of(read[1]), tensors=[tensor], layers=[], ties=[]), OPERATORS)
