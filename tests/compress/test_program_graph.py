import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from compress.errors import ProgramError
from compress.program.archive import Archive
from compress.program.arguments import Reference, Setting
from compress.program.graph import read_graph
from compress.program.operators import ATEN, OPERATORS, TENSORS, refusal
from compress.program.steps import function_of
from tests.compress.programs import MODEL, changed, graph_of, members, pack, write


class Small(nn.Module):
    """One of each kind of argument."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("scale", torch.ones(4), persistent=False)

    def forward(self, x):
        lower = self.layer(x).masked_fill(x > 0, -math.inf)
        rows = torch.zeros(x.shape[0] * 2, 4, dtype=torch.float32)
        first, _ = torch.cat([x, lower, rows.reshape(-1, 8)], 1).split([4, 12], 1)
        return first * self.scale


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write(Small(), [torch.zeros(2, 4)], tmp_path_factory.mktemp("small") / "small.pt2")


@pytest.fixture
def read(small, tmp_path):
    """The graph of the small network, after a change of its model.json."""

    def read_(edit=lambda document: None, **replaced):
        path = changed(small, tmp_path / "changed.pt2", edit=edit, replace=replaced)
        with Archive(path) as archive:
            return read_graph(archive)

    return read_


def node_of(graph, operator):
    return next(node for node in graph.nodes if node.operator == f"{ATEN}{operator}")


def test_the_graph_says_what_the_network_computes(read):
    graph = read()
    assert graph.state.keys() >= {"p_layer_weight", "b_scale"}
    assert graph.state["p_layer_weight"] == "layer.weight"
    assert graph.spec("x").shape == (2, 4)
    assert graph.spec("x").dtype == "float32"
    assert graph.spec("x").symbols[0] is not None
    assert graph.spec("x").symbols[1] is None
    assert graph.inputs == ("x",)
    assert graph.operators[f"{ATEN}linear.default"] == 1
    linear = node_of(graph, "linear.default")
    assert linear.arguments == {
        "input": Reference("x"),
        "weight": Reference("p_layer_weight"),
        "bias": Reference("p_layer_bias"),
    }
    assert node_of(graph, "masked_fill.Scalar").arguments["value"] == -math.inf
    zeros = node_of(graph, "zeros.default").arguments
    assert zeros["dtype"] == Setting("dtype", 7)
    assert zeros["device"] == Setting("device")
    assert isinstance(zeros["size"][0], Reference)
    split = node_of(graph, "split_with_sizes.default")
    assert split.unpacked
    assert len(split.results) == 2
    assert graph.outputs == graph.nodes[-1].results


def test_the_author_is_in_nothing_that_is_kept(small, read):
    assert b"test_program_graph.py" in members(small)[MODEL]
    assert "test_program_graph" not in repr(read())


def target(document):
    """The node of the linear layer."""
    return next(n for n in graph_of(document)["nodes"] if n["target"] == f"{ATEN}linear.default")


def set_target(operator):
    return lambda document: target(document).update(target=operator)


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        ("torch.os.system", "'torch.os.system' is not among the"),
        ("torch.ops.aten.from_file.default", "is not among the"),
        ("torch.ops.aten.bernoulli_.float", "export the network in eval mode"),
        ("torch.ops.aten.convolution.default", "before run_decompositions"),
        ("torch.ops.higher_order.cond", "control flow"),
        ("torch.ops.aten.nonzero.default", "a size that depends on values"),
        ("_operator.pow", "is not among the"),
        ("builtins.eval", "is not among the"),
        ("torch.ops.aten.linear.default.__class__", "is not among the"),
        ("", "'' is not among the"),
    ],
)
def test_an_operator_outside_the_table_is_refused_by_name(read, operator, message):
    with pytest.raises(ProgramError, match=message) as caught:
        read(set_target(operator))
    assert str(caught.value).startswith("node 'linear': operator ")


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({MODEL: b"{"}, "is no JSON"),
        ({MODEL: b"[]"}, "a JSON object was wanted"),
        ({MODEL: b"{}"}, "'schema_version'"),
        ({MODEL: b'{"a": 1, "a": 2}'}, "a key comes twice"),
        ({MODEL: b'{"a": NaN}'}, "NaN is no number"),
        ({MODEL: b'{"a": -Infinity}'}, "-Infinity is no number"),
        ({MODEL: b'{"a": 9223372036854775808}'}, "more than 64 bits"),
        ({MODEL: b'{"a": %s}' % (b"9" * 100_000)}, "more than 64 bits"),
        ({MODEL: b"[" * 200_000}, "is no JSON"),
        ({MODEL: b"\xff\xfe"}, "is no JSON"),
        ({"archive_format": b"onnx"}, "archive_format is b'onnx', b'pt2' was wanted"),
        ({"archive_version": b"1"}, "archive_version is b'1'"),
        ({"byteorder": b"big"}, "big-endian"),
        ({"data/aotinductor/model/model.so": b""}, "compiled code"),
        ({"data/weights/model.pt": b""}, "torch 2.10 or older"),
        ({"serialized_exported_program.json": b""}, "torch 2.10 or older"),
        ({"data.pkl": b""}, "torch.save"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value[:20],
)
def test_a_malformed_archive_is_refused(read, replaced, message):
    with pytest.raises(ProgramError, match=message):
        read(**replaced)


def test_a_missing_document_is_refused(small, tmp_path):
    contents = {name: content for name, content in members(small).items() if name != MODEL}
    with (
        Archive(pack(contents, tmp_path / "file")) as archive,
        pytest.raises(ProgramError, match=r"the archive holds no 'models/model\.json'"),
    ):
        read_graph(archive)


def another_schema(document):
    document["schema_version"]["major"] = 9


def forward_reference(document):
    nodes = graph_of(document)["nodes"]
    nodes.insert(0, nodes.pop())


def cycle(document):
    (argument,) = (a for a in target(document)["inputs"] if a["name"] == "input")
    argument["arg"]["as_tensor"]["name"] = "linear"


def number_as_tensor(document):
    numbers = iter(graph_of(document)["sym_int_values"])
    target(document)["inputs"][0]["arg"] = {"as_tensor": {"name": next(numbers)}}


def twice(document):
    graph_of(document)["nodes"].append(target(document))


def shadowed_input(document):
    target(document)["outputs"][0]["as_tensor"]["name"] = "x"


def argument_twice(document):
    target(document)["inputs"].append(target(document)["inputs"][0])


def graph_as_argument(document):
    target(document)["inputs"][0]["arg"] = {"as_graph": {"name": "x", "graph": {}}}


def a_text_for_a_number(document):
    target(document)["inputs"][0]["arg"] = {"as_int": "3"}


def truth_for_a_number(document):
    target(document)["inputs"][0]["arg"] = {"as_int": True}


def no_number(document):
    target(document)["inputs"][0]["arg"] = {"as_float": "NaN"}


def two_kinds(document):
    target(document)["inputs"][0]["arg"] = {"as_int": 1, "as_float": 1.0}


def sparse(document):
    graph_of(document)["tensor_values"]["x"]["layout"] = 1


def complex_numbers(document):
    graph_of(document)["tensor_values"]["x"]["dtype"] = 10


def giant(document):
    graph_of(document)["tensor_values"]["x"]["sizes"][1]["as_int"] = 2**40


def many_axes(document):
    graph_of(document)["tensor_values"]["x"]["sizes"] *= 9


def negative(document):
    graph_of(document)["tensor_values"]["x"]["sizes"][1]["as_int"] = -4


def size_of_values(document):
    graph_of(document)["tensor_values"]["x"]["sizes"][0]["as_expr"]["hint"] = None


def no_inputs(document):
    specs = document["graph_module"]["signature"]["input_specs"]
    specs[:] = [spec for spec in specs if "user_input" not in spec]
    graph_of(document)["nodes"].clear()


def no_outputs(document):
    document["graph_module"]["signature"]["output_specs"].clear()


def custom_object(document):
    document["graph_module"]["signature"]["input_specs"][0] = {
        "custom_obj": {"arg": {"name": "x", "class_fqn": "os"}, "custom_obj_name": "x"}
    }


def tensor_times_size(document):
    (node,) = (n for n in graph_of(document)["nodes"] if n["target"] == "_operator.mul")
    node["inputs"][0]["arg"] = {"as_string": "a long text"}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (another_schema, "schema version 9 came"),
        (forward_reference, "used before a node defines it"),
        (cycle, "'linear' is used before"),
        (number_as_tensor, "the tensor 'sym_size_int_1' is used before"),
        (twice, "'linear' is defined twice"),
        (shadowed_input, "'x' is defined twice"),
        (argument_twice, "'input' comes twice"),
        (graph_as_argument, "'as_graph': not read"),
        (a_text_for_a_number, "'3' of kind 'as_int'"),
        (truth_for_a_number, "True of kind 'as_int'"),
        (no_number, "'NaN' of kind 'as_float'"),
        (two_kinds, "an object of one key"),
        (sparse, "'x' is sparse"),
        (complex_numbers, "'x' has dtype 10"),
        (giant, "'x' has shape"),
        (many_axes, "at most 8 axes"),
        (negative, "'x' has size -4"),
        (size_of_values, "a size that depends on values"),
        (no_inputs, "takes no tensor"),
        (no_outputs, "returns no tensor"),
        (custom_object, "'custom_obj': tensors were wanted"),
        (tensor_times_size, "'a long text', no number"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_malformed_graph_is_refused(read, edit, message):
    with pytest.raises(ProgramError, match=message):
        read(edit)


def test_more_nodes_than_a_network_has_are_refused(read, monkeypatch):
    monkeypatch.setattr("compress.program.graph.MAX_NODES", 3)
    with pytest.raises(ProgramError, match="nodes came, at most 3 were wanted"):
        read()


def test_a_fault_names_its_node(read):
    with pytest.raises(ProgramError) as caught:
        read(truth_for_a_number)
    assert caught.value.__notes__ == [f"in node 'linear' ({ATEN}linear.default)"]


def test_the_operators_of_the_table_make_tensors_of_tensors():
    """Or of nothing, on a device that is given: a trial without memory sees all that is made."""
    schemas = {operator: function_of(operator, OPERATORS)._schema for operator in TENSORS}
    from_tensors = {
        o for o, s in schemas.items() if any("Tensor" in str(a.type) for a in s.arguments)
    }
    on_a_device = {o for o, s in schemas.items() if "device" in {a.name for a in s.arguments}}
    of_numbers = {
        o for o, s in schemas.items() if any("Tensor" not in str(r.type) for r in s.returns)
    }
    assert from_tensors | on_a_device == TENSORS
    assert of_numbers == set()
    assert {refusal(operator) for operator in TENSORS} == {None}


def test_an_archive_is_checked_without_torch(small):
    code = (
        "import sys\n"
        "from compress.program.archive import Archive\n"
        "from compress.program.graph import read_graph\n"
        "from compress.program.state import read_state\n"
        "with Archive(sys.argv[1]) as archive:\n"
        "    print(len(read_graph(archive).nodes), len(read_state(archive)))\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, small], check=False, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert [int(number) for number in done.stdout.split()][1] == 3
