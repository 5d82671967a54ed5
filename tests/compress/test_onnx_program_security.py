"""ONNX files that are damaged, or made to read, run or take what they should not."""

import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, FunctionProto, ModelProto, TensorProto, helper, numpy_helper

from compress.errors import CompressError, ProgramError
from compress.onnx_program import model_file
from compress.onnx_program.model_file import read_model
from compress.onnx_program.read import read_onnx
from compress.program import child
from tests.compress.onnx_files import FLOAT, model_of, node, saved


def plain():
    """x times a weight, plus a bias."""
    weights = {"w": np.eye(4, dtype=np.float32), "b": np.ones(4, np.float32)}
    nodes = [node("MatMul", "x w", "h"), node("Add", "h b")]
    return model_of(nodes, {"x": ["N", 4]}, weights)


def external(location):
    def edit(model, folder):
        secret = folder / "secret"
        secret.write_bytes(np.full(16, 42, np.float32).tobytes())
        weight = model.graph.initializer[0]
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location.format(folder=folder))

    return edit


def external_beside_values(model, folder):
    model.graph.initializer[0].external_data.add(key="location", value="/etc/hostname")


def external_in_an_attribute(model, folder):
    values = numpy_helper.from_array(np.ones(4, np.float32), "hidden")
    values.data_location = TensorProto.EXTERNAL
    model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=values))


def function(model, folder):
    model.functions.append(FunctionProto(name="f", domain="mine"))


def training(model, folder):
    model.training_info.add()


def domain(model, folder):
    model.graph.node[0].domain = "com.microsoft"


def overload(model, folder):
    model.graph.node[0].overload = "mine"


def subgraph(model, folder):
    model.graph.node.append(
        helper.make_node("If", ["x"], ["z"], name="if", then_branch=model.graph)
    )


def sparse(model, folder):
    model.graph.sparse_initializer.add()


def old(model, folder):
    model.opset_import[0].version = 12


def new(model, folder):
    model.opset_import[0].version = 99


def two_versions(model, folder):
    model.opset_import.append(helper.make_opsetid("ai.onnx", 18))


def cycle(model, folder):
    model.graph.node[0].input[0] = "y"


def itself(model, folder):
    model.graph.node[0].input[0] = "h"


def twice(model, folder):
    model.graph.node[1].output[0] = "h"


def as_a_weight(model, folder):
    model.graph.node[0].output[0] = "w"


def two_weights(model, folder):
    model.graph.initializer[1].name = "w"


def twice_an_attribute(model, folder):
    attributes = [helper.make_attribute("axis", 1), helper.make_attribute("axis", 0)]
    model.graph.node[1].CopyFrom(node("Softmax", "h"))
    model.graph.node[1].attribute.extend(attributes)


def unknown_result(model, folder):
    model.graph.output[0].name = "z"


def nothing_comes_out(model, folder):
    del model.graph.node[1].output[:]


def no_text(model, folder):
    content = model.SerializeToString().replace(b"MatMul_h", b"MatMul\xff\xff")
    model.ParseFromString(content)


def odd_settings(model, folder):
    call = node("Slice", "x s e")
    weights = {"s": np.array([1, 2]), "e": np.array([3])}
    model.CopyFrom(model_of([call], {"x": ["N", 4]}, weights))


def no_result(model, folder):
    del model.graph.output[:]


def no_input(model, folder):
    model.graph.input[0].name = "w"
    model.graph.node[0].input[0] = "w"


def scalar_input(model, folder):
    del model.graph.input[0].type.tensor_type.shape.dim[:]


def unknown_axes(model, folder):
    model.graph.input[0].type.tensor_type.ClearField("shape")


def text_input(model, folder):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING


def huge_input(model, folder):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2**40


def negative_input(model, folder):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = -4


def huge_weight(model, folder):
    model.graph.initializer[0].dims[0] = 2**40


def negative_weight(model, folder):
    model.graph.initializer[0].dims[0] = -4


def wrong_shape(model, folder):
    model.graph.initializer[0].dims[0] = 5


def empty_weight(model, folder):
    model.graph.initializer[0].ClearField("raw_data")


def many_axes(model, folder):
    model.graph.initializer[0].dims.extend([1] * 100_000)


def text_weight(model, folder):
    model.graph.initializer[0].data_type = TensorProto.STRING


def segment(model, folder):
    model.graph.initializer[0].segment.begin = 1


def reference(model, folder):
    attribute = AttributeProto(name="axis", type=AttributeProto.INT, ref_attr_name="mine")
    model.graph.node[1].attribute.append(attribute)


def not_a_number(model, folder):
    values = np.full((4, 4), np.nan, np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w"))


def not_a_number_besides(model, folder):
    model.graph.node[0].CopyFrom(node("Relu", "x", "h"))
    values = np.full(4, np.nan, np.float32)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(values, "b"))


def missing_input(model, folder):
    del model.graph.node[0].input[1:]


def empty(model, folder):
    model.Clear()


HOSTILE = {
    "external data": (external("secret"), "another file"),
    "external data above": (external("../secret"), "another file"),
    "external data anywhere": (external("{folder}/secret"), "another file"),
    "external data beside values": (external_beside_values, "another file"),
    "external data in an attribute": (external_in_an_attribute, "another file"),
    "function": (function, "functions or training"),
    "training": (training, "functions or training"),
    "domain": (domain, "of 'com.microsoft'"),
    "overload": (overload, "operators of ONNX itself"),
    "subgraph": (subgraph, "control flow is not read"),
    "sparse": (sparse, "sparse"),
    "old": (old, "13 to 20"),
    "new": (new, "13 to 20"),
    "two versions": (two_versions, "13 to 20"),
    "cycle": (cycle, "before a node defines it"),
    "itself": (itself, "before a node defines it"),
    "twice": (twice, "'h' is defined twice"),
    "as a weight": (as_a_weight, "'w' is defined twice"),
    "two weights": (two_weights, "'w' is defined twice"),
    "twice an attribute": (twice_an_attribute, "'axis' comes twice"),
    "unknown result": (unknown_result, "no node defines"),
    "nothing comes out": (nothing_comes_out, "returns nothing"),
    "no text": (no_text, "no UTF-8"),
    "odd settings": (odd_settings, "not those of ONNX"),
    "no result": (no_result, "no node defines"),
    "no input": (no_input, "takes no tensor"),
    "scalar input": (scalar_input, "has no axes"),
    "unknown axes": (unknown_axes, "known number of axes"),
    "text input": (text_input, "has dtype 8"),
    "huge input": (huge_input, "at most 8 axes"),
    "negative input": (negative_input, "at most 8 axes"),
    "huge weight": (huge_weight, "at most 8 axes"),
    "negative weight": (negative_weight, "at most 8 axes"),
    "wrong shape": (wrong_shape, "damaged"),
    "empty weight": (empty_weight, "damaged"),
    "many axes": (many_axes, "at most 8 axes"),
    "text weight": (text_weight, "has dtype 8"),
    "segment": (segment, "or is a part"),
    "reference": (reference, "not read"),
    "not a number": (not_a_number, "NaN or infinity"),
    "not a number besides": (not_a_number_besides, "holds NaN"),
    "missing input": (missing_input, "input 1 is missing"),
    "empty": (empty, "came, 1 to"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(name, tmp_path):
    edit, message = HOSTILE[name]
    model = plain()
    folder = tmp_path / "uploads"
    folder.mkdir()
    edit(model, folder)
    path = saved(model, folder / "model.onnx")
    with pytest.raises(ProgramError, match=message) as error:
        read_onnx(path)
    assert len("; ".join([str(error.value), *getattr(error.value, "__notes__", [])])) < 1000


def test_the_plain_file_is_read(tmp_path):
    assert read_onnx(saved(plain(), tmp_path / "model.onnx")).state_dict()


def test_no_other_file_is_opened(tmp_path):
    """Whatever the file says: an audit hook sees every open."""
    opened = []
    model = plain()
    external("../secret")(model, tmp_path)
    path = saved(model, tmp_path / "model.onnx")
    watching = True
    sys.addaudithook(
        lambda event, arguments: (
            opened.append(str(arguments[0])) if watching and event == "open" else None
        )
    )
    with pytest.raises(ProgramError):
        read_onnx(path)
    watching = False
    assert [name for name in opened if str(tmp_path) in name] == [str(path)]


@pytest.mark.parametrize("length", [1, 10, 100, -1])
def test_a_truncated_file_is_refused(length, tmp_path):
    path = saved(plain().SerializeToString()[:length], tmp_path / "model.onnx")
    with pytest.raises(ProgramError):
        read_onnx(path)


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"not a model", b"\n" * 1000], ids=repr)
def test_what_is_no_model_is_refused(content, tmp_path):
    with pytest.raises(ProgramError):
        read_model(saved(content, tmp_path / "model.onnx"))


def field(number, content):
    """A field of a protobuf message that holds bytes."""
    size, length = b"", len(content)
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def test_deep_nesting_is_refused(tmp_path):
    """A graph in an attribute of a node of a graph, and so on."""
    graph = b""
    for _ in range(10_000):
        graph = field(1, field(5, field(6, graph)))
    with pytest.raises(ProgramError, match="truncated, or no ONNX file"):
        read_model(saved(field(7, graph), tmp_path / "model.onnx"))


def test_nodes_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(model_file, "MAX_NODES", 1)
    with pytest.raises(ProgramError, match="2 nodes and 2 tensors"):
        read_model(saved(plain(), tmp_path / "model.onnx"))


def test_a_file_is_measured_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(model_file, "MAX_BYTES", 10)
    with pytest.raises(ProgramError, match="1 to 10 were wanted"):
        read_model(saved(plain(), tmp_path / "model.onnx"))


def test_results_that_grow_are_stopped_before_they_are_made(tmp_path):
    nodes = [node("Concat", " ".join(["x"] * 2), "h0", axis=1)]
    nodes += [node("Concat", f"h{i} h{i}", f"h{i + 1}", axis=1) for i in range(40)]
    path = saved(model_of(nodes, {"x": ["N", 4]}, outputs=["h40"]), tmp_path / "model.onnx")
    with pytest.raises(ProgramError, match="at most 8 axes and 2147483648 real values"):
        read_onnx(path)


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 400), value=st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused(place, value, tmp_path_factory):
    content = bytearray(plain().SerializeToString())
    content[place % len(content)] = value
    path = saved(bytes(content), tmp_path_factory.mktemp("bytes") / "model.onnx")
    try:
        found = read_onnx(path)
    except CompressError as error:
        found = str(error)
    assert found


def test_the_notes_come_with_the_childs_answer(tmp_path, monkeypatch, capsys):
    model = model_of([node("Loop", "x")], {"x": (FLOAT, [2, 4])})
    path = saved(model, tmp_path / "model.onnx")
    monkeypatch.setattr(child, "confine", lambda **limits: None)
    monkeypatch.setattr(sys, "argv", ["child", str(path), "1", "1"])
    child.main()
    said = json.loads(capsys.readouterr().out)["error"]
    assert "control flow" in said
    assert "in node 'Loop_y'" in said


def test_a_message_repeats_little_of_what_came(tmp_path):
    model = model_of([node("Relu", "x")], {"x": ["N", 4]})
    model.graph.node[0].op_type = "R" * 100_000
    model.graph.node[0].name = "n" * 100_000
    with pytest.raises(ProgramError) as error:
        read_onnx(saved(ModelProto.FromString(model.SerializeToString()), tmp_path / "model.onnx"))
    assert len("; ".join([str(error.value), *error.value.__notes__])) < 1000
