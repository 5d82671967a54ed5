import copy
import json

import pytest
import torch
from torch import nn

from compress.errors import ProgramError
from compress.program.archive import Archive
from compress.program.state import read_state
from compress.program.tensors import load
from tests.compress.programs import CONSTANTS, WEIGHTS, changed, members, write


class Holder(nn.Module):
    """Tensors of many kinds, some of which the network computes with."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3))
        self.tied = self.weight
        self.turned = nn.Parameter(torch.randn(3, 4).T, requires_grad=False)
        self.part = nn.Parameter(torch.randn(10, 3)[2:8:2])
        self.short = nn.Parameter(torch.randn(5).half())
        self.brief = nn.Parameter(torch.randn(5).bfloat16())
        self.register_buffer("mask", torch.tensor([True, False, True]))
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("empty", torch.zeros(0, 3))
        self.register_buffer("hidden", torch.arange(3.0), persistent=False)

    def forward(self, x):
        return x @ self.weight * self.mask + self.hidden + torch.tensor([1.0, 2.0, 3.0])


@pytest.fixture(scope="module")
def holder():
    return Holder()


@pytest.fixture(scope="module")
def archive(holder, tmp_path_factory):
    return write(holder.eval(), [torch.zeros(2, 4)], tmp_path_factory.mktemp("state") / "model.pt2")


@pytest.fixture
def read(archive, tmp_path):
    """The tensors, after a change of the weights' description."""

    def read_(edit=lambda entries: None, member=WEIGHTS, **replaced):
        path = tmp_path / "changed.pt2"
        changed(archive, path, member=member, edit=lambda d: edit(d["config"]), replace=replaced)
        with Archive(path) as opened:
            return load(opened, read_state(opened))

    return read_


def test_tensors_are_read_as_they_were(holder, read):
    tensors = read()
    for name, value in holder.state_dict(keep_vars=True).items():
        assert torch.equal(tensors[name], value), name
        assert tensors[name].dtype == value.dtype
        assert tensors[name].requires_grad == value.requires_grad
        assert isinstance(tensors[name], nn.Parameter) == isinstance(value, nn.Parameter)
    assert tensors["tied"] is tensors["weight"]
    assert tensors["turned"].stride() == holder.turned.stride()
    assert torch.equal(tensors["hidden"], holder.hidden)
    assert tensors.keys() - holder.state_dict().keys() == {"hidden", "lifted_tensor_0"}


def test_only_what_the_state_dict_held_is_persistent(archive, holder):
    with Archive(archive) as opened:
        state = read_state(opened)
    assert {n for n, stored in state.items() if stored.persistent} == holder.state_dict().keys()


def test_a_tensor_is_no_larger_than_what_it_shows(read):
    part = read()["part"]
    assert part.untyped_storage().nbytes() == part.numel() * part.element_size()


def sizes(*values):
    return [{"as_int": value} for value in values]


def meta(**entries):
    return lambda config: config["weight"]["tensor_meta"].update(entries)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda config: config["weight"].update(use_pickle=True), "a pickle, which is never read"),
        (lambda config: config["weight"].update(path_name="../weight_0"), "never read"),
        (lambda config: config["weight"].update(path_name="opaque_obj_0"), "never read"),
        (lambda config: config["weight"].update(path_name="weight_99"), "'data/weights/weight_99'"),
        (lambda config: config["weight"].update(is_param=1), "'is_param' is 1"),
        (lambda config: config["weight"].update(tensor_meta=None), "'tensor_meta' is None"),
        (meta(sizes=sizes(4, 4), strides=sizes(4, 1)), "does not fit into 48 bytes"),
        (meta(sizes=sizes(4, 3), strides=sizes(2**40, 1)), "does not fit into 48 bytes"),
        (meta(storage_offset={"as_int": 1}), "does not fit into 48 bytes"),
        (meta(storage_offset={"as_int": -1}), "-1 is no stride and no offset"),
        (meta(strides=sizes(-3, 1)), "-3 is no stride"),
        (meta(strides=sizes(0, 1)), "see a value twice"),
        (meta(strides=sizes(2, 1)), "see a value twice"),
        (meta(sizes=sizes(3, 3, 1), strides=sizes(1, 3)), "3 sizes and 2 strides"),
        (meta(sizes=sizes(2**31, 2)), "at most 8 axes"),
        (meta(sizes=[{"as_expr": {"expr_str": "s0", "hint": {"as_int": 4}}}, *sizes(3)]),
         "numbers were wanted"),
        (meta(dtype=10), "dtype 10"),
        (meta(layout=2), "sparse"),
    ],
)  # fmt: skip
def test_a_description_that_does_not_fit_its_bytes_is_refused(read, edit, message):
    with pytest.raises(ProgramError, match=message) as caught:
        read(edit)
    assert caught.value.__notes__ == [f"in the tensor 'weight' of {WEIGHTS}"]


def test_many_views_of_few_bytes_are_refused(tmp_path):
    path = write(nn.Sequential(nn.Linear(64, 64)).eval(), [torch.zeros(2, 64)], tmp_path / "a.pt2")

    def views(step):
        def edit(document):
            for number in range(1, 20):
                view = copy.deepcopy(document["config"]["0.weight"])
                if step:
                    view["tensor_meta"]["sizes"] = sizes(63, 64)
                view["tensor_meta"]["storage_offset"] = {"as_int": number * step}
                document["config"][f"view_{number}"] = view

        return changed(path, tmp_path / "changed.pt2", member=WEIGHTS, edit=edit)

    with Archive(views(0)) as opened:
        assert len(set(read_state(opened).values())) == 2  # equal views are one tensor
    with Archive(views(1)) as opened, pytest.raises(ProgramError, match="they overlap"):
        read_state(opened)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(archive, read, value):
    path = "data/weights/weight_0"
    content = torch.frombuffer(bytearray(members(archive)[path]), dtype=torch.float32)
    content[-1] = value
    with pytest.raises(ProgramError, match="NaN or infinity") as caught:
        read(**{path: content.numpy().tobytes()})
    assert caught.value.__notes__ == ["in the tensor 'weight'"]


def test_a_bool_is_one_of_two(archive, read):
    config = json.loads(members(archive)[WEIGHTS])["config"]["mask"]
    mask = read(**{f"data/weights/{config['path_name']}": b"\x02\x00\xff"})["mask"]
    assert mask.view(torch.uint8).tolist() == [1, 0, 1]


def test_a_name_stands_for_one_tensor(read):
    def rename(config):
        config["weight"] = config["hidden"]

    with pytest.raises(ProgramError, match="'weight' is a weight and a constant"):
        read(rename, CONSTANTS)
