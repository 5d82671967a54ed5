"""Each way in which a crafted archive makes torch.export.load run code, with a harmless marker."""

import io
import pickle

import pytest
import torch
from torch import nn

from compress.errors import ProgramError
from compress.program.read import read_program
from tests.compress.programs import MODEL, WEIGHTS, changed, graph_of, members, write


class Marker:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return (open, (str(self._path), "w"))


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "ran"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval()
    return write(model, [torch.zeros(2, 4)], tmp_path_factory.mktemp("plain") / "model.pt2")


def code(marker):
    return f"__import__('pathlib').Path({str(marker)!r}).touch()"


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_marker_works(marker):
    pickle.loads(pickle.dumps(Marker(marker))).close()
    assert marker.exists()
    marker.unlink()
    eval(code(marker))
    assert marker.exists()


def pickled(marker):
    file = io.BytesIO()
    torch.save(Marker(marker), file)
    return file.getvalue()


def sample_inputs(marker):
    return {"replace": {"data/sample_inputs/model.pt": pickled(marker)}}


def guard(marker):
    return {"edit": lambda document: document.update(guards_code=[code(marker)])}


def symbolic_size(marker):
    def edit(document):
        for meta in graph_of(document)["tensor_values"].values():
            for size in meta["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = code(marker)

    return {"edit": edit}


def range_of_a_symbol(marker):
    return {
        "edit": lambda document: document.update(
            range_constraints={code(marker): {"min_val": 1, "max_val": 2}}
        )
    }


def tree_of_inputs(marker):
    def edit(document):
        signature = document["graph_module"]["module_call_graph"][0]["signature"]
        signature["in_spec"] = code(marker)

    return {"edit": edit}


def stack_trace(marker):
    def edit(document):
        for node in graph_of(document)["nodes"]:
            node["metadata"] = {key: code(marker) for key in node["metadata"]}

    return {"edit": edit}


@pytest.mark.parametrize(
    "craft",
    [sample_inputs, guard, symbolic_size, range_of_a_symbol, tree_of_inputs, stack_trace],
)
def test_what_is_never_read_never_runs(archive, tmp_path, marker, craft):
    path = changed(archive, tmp_path / "crafted.pt2", **craft(marker))
    found = read_program(path)
    assert not marker.exists()
    assert torch.equal(found(torch.ones(1, 4)), read_program(archive)(torch.ones(1, 4)))


def pickled_weight(marker):
    def edit(document):
        document["config"]["0.weight"]["use_pickle"] = True

    replace = {"data/weights/weight_0": pickled(marker)}
    return {"member": WEIGHTS, "edit": edit, "replace": replace}


def opaque_object(marker, name="opaque_obj_0"):
    replace = {f"data/constants/{name}": pickle.dumps(Marker(marker))}

    def edit(document):
        document["graph_module"]["signature"]["input_specs"][0] = {
            "custom_obj": {"arg": {"name": "p_0_weight", "class_fqn": "x"}, "custom_obj_name": name}
        }

    return {"edit": edit, "replace": replace}


def compiled_library(marker):
    return {"replace": {"data/aotinductor/model/model.so": b"\x7fELF"}}


def function_of_a_module(marker):
    def edit(document):
        graph_of(document)["nodes"][0].update(
            target="torch.os.system",
            inputs=[{"name": "command", "arg": {"as_string": f"touch {marker}"}, "kind": 1}],
        )

    return {"edit": edit}


def name_as_code(marker):
    name = f"0;{code(marker)}#"

    def edit(document):
        document["config"][name] = document["config"].pop("0.weight")

    return {"member": WEIGHTS, "edit": edit}


@pytest.mark.parametrize(
    ("craft", "message"),
    [
        (pickled_weight, "a pickle, which is never read"),
        (opaque_object, "'custom_obj': tensors were wanted"),
        (compiled_library, "compiled code"),
        (function_of_a_module, "'torch.os.system' is not among"),
        (name_as_code, "'0.weight'"),
    ],
)
def test_what_runs_elsewhere_is_refused(archive, tmp_path, marker, craft, message):
    path = changed(archive, tmp_path / "crafted.pt2", **craft(marker))
    with pytest.raises(ProgramError, match=message):
        read_program(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    ["a b", "a'b", "__class__", "forward", "_modules", "a..b", ".", "", "ä", "x" * 300, "a." * 99],
)
def test_a_tensor_of_no_modules_name_is_refused(archive, tmp_path, name):
    def edit(document):
        for spec in document["graph_module"]["signature"]["input_specs"]:
            if spec.get("parameter", {}).get("parameter_name") == "0.weight":
                spec["parameter"]["parameter_name"] = name

    crafted = changed(archive, tmp_path / "crafted.pt2", edit=edit)

    def rename(document):
        document["config"][name] = document["config"].pop("0.weight")

    with pytest.raises(ProgramError, match="a tensor is named"):
        read_program(changed(crafted, tmp_path / "renamed.pt2", member=WEIGHTS, edit=rename))


def test_values_may_be_named_as_anything(archive, tmp_path, marker):
    """No source code is made of them."""
    text = members(archive)[MODEL].decode().replace('"linear"', f'"{code(marker)}"')
    found = read_program(changed(archive, tmp_path / "a.pt2", replace={MODEL: text.encode()}))
    assert "__import__" in repr(found._program_steps)
    found(torch.ones(1, 4))
    assert not marker.exists()


def test_no_loader_of_python_or_torch_is_called(archive, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("something in the archive would have been run")

    for module, name in ((torch, "load"), (torch.export, "load"), (pickle, "loads")):
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr("builtins.eval", refuse)
    read_program(archive)
