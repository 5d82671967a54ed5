"""`.pt2` archives whose graph or tensors were changed by what such a document may say.

The checksums are right, so that every change is read.
"""

import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from benchmarks.forgeries.containers import Members, members, packed
from benchmarks.forgeries.dice import Dice
from benchmarks.forgeries.documents import changed_, nested, number
from compress.program.operators import OPERATORS
from compress.program.specs import DTYPES

MODEL: Final = "models/model.json"
TENSORS: Final = (
    "data/weights/model_weights_config.json",
    "data/constants/model_constants_config.json",
)
ASIDE: Final = ("metadata",)  # what nobody reads, and most of the document
OPERATOR_NAMES: Final = tuple(sorted(OPERATORS))
OTHERS: Final = (
    "torch.os.system", "builtins.eval", "torch.ops.aten.item.default", "torch.hub.load",
    "torch.ops.aten.randn.default", "torch.ops.aten.as_strided.default", "_operator.attrgetter",
    "torch.ops.aten.resize_.default", "torch.ops.aten.set_.source_Storage_storage_offset",
    "torch.ops.aten.add.out", "torch.ops.aten.from_file.default", "torch.ops.prim.device.default",
)  # fmt: skip
KINDS: Final = (
    "as_int", "as_ints", "as_float", "as_string", "as_bool", "as_none", "as_tensor", "as_tensors",
    "as_sym_int", "as_sym_ints", "as_scalar_type", "as_device", "as_layout", "as_memory_format",
    "as_graph", "as_custom_obj", "as_operator", "as_complex", "as_optional_tensors",
)  # fmt: skip

Graph = dict[str, Any]
Change = Callable[[Graph, Dice], None]


def operator_(graph: Graph, dice: Dice) -> None:
    """A node calls another operator."""
    names = (*OTHERS, dice.code) if dice.random() < 0.15 else OPERATOR_NAMES
    _node(graph, dice)["target"] = dice.choice(names)


def argument_(graph: Graph, dice: Dice) -> None:
    """A node has another argument, one more, one less, or one of another's."""
    inputs, others = _node(graph, dice)["inputs"], _node(graph, dice)["inputs"]
    if not inputs or not others:
        return
    place, other = dice.randrange(len(inputs)), dice.choice(others)
    match dice.randrange(6):
        case 0:
            inputs[place] = {**inputs[place], "arg": other["arg"]}
        case 1:
            inputs[place] = {**inputs[place], "name": other["name"]}
        case 2:
            inputs.insert(place, other)
        case 3:
            del inputs[place]
        case 4:
            ((kind, content),) = [*inputs[place]["arg"].items()][:1]
            inputs[place] = {**inputs[place], "arg": {dice.choice((*KINDS, kind)): content}}
        case _:
            value = dice.choice((number(dice), [number(dice)] * dice.choice((1, 2, 5)), dice.code))
            inputs[place] = {**inputs[place], "arg": {dice.choice(KINDS): value}}


def number_(graph: Graph, dice: Dice) -> None:
    """Sizes, axes and settings of a node are others: negative ones, huge ones."""
    places = [
        (arg, kind, content)
        for node in graph["nodes"]
        for arg in (given["arg"] for given in node["inputs"])
        for kind, content in arg.items()
        if kind in ("as_int", "as_ints", "as_float", "as_floats", "as_scalar_type", "as_sym_ints")
    ]
    if not places:
        return
    for _ in range(dice.choice((1, 1, 2, 4))):
        arg, kind, content = dice.choice(places)
        if isinstance(content, list):
            chosen = list(content) * dice.choice((1, 1, 1, 2)) or [1]
            one = number(dice)
            chosen[dice.randrange(len(chosen))] = {"as_int": one} if kind == "as_sym_ints" else one
            arg[kind] = chosen
        else:
            arg[kind] = number(dice)


def reference_(graph: Graph, dice: Dice) -> None:
    """A node reads another value: a later one, its own, one of nobody, a number for a tensor."""
    names = [*graph["tensor_values"], *graph["sym_int_values"], "nothing", dice.code]
    places = list(_names(graph["nodes"]))
    for _ in range(dice.choice((1, 1, 2))):
        holder, key = dice.choice(places)
        holder[key] = dice.choice(names)


def order_(graph: Graph, dice: Dice) -> None:
    """Nodes stand in another order, twice, or not at all."""
    nodes = graph["nodes"]
    place, other = dice.randrange(len(nodes)), dice.randrange(len(nodes))
    match dice.randrange(4):
        case 0:
            nodes[place], nodes[other] = nodes[other], nodes[place]
        case 1:
            del nodes[place]
        case 2:
            nodes.insert(place, nodes[other])
        case _:
            nodes[place] = {**nodes[place], "outputs": nodes[other]["outputs"]}


def shape_(graph: Graph, dice: Dice) -> None:
    """A declared shape or dtype is another one."""
    meta = dice.choice(list(graph["tensor_values"].values()))
    match dice.randrange(4):
        case 0:
            meta["dtype"] = dice.choice((*DTYPES, 0, 9, 99))
        case 1:
            meta["sizes"] = [{"as_int": number(dice)} for _ in range(dice.randrange(10))]
        case 2 if meta["sizes"]:
            meta["sizes"][dice.randrange(len(meta["sizes"]))] = {"as_int": number(dice)}
        case _:
            expression = {"expr_str": dice.code, "hint": {"as_int": number(dice)}}
            meta["sizes"] = [{"as_expr": expression}, *meta["sizes"][1:]]


def _graph_changed(content: bytes, dice: Dice, change: Change) -> bytes:
    found, root = _opened(content)
    document = json.loads(found[root + MODEL])
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        change(document["graph_module"]["graph"], dice)
    return packed(found | {root + MODEL: json.dumps(document).encode()})


def any_value(content: bytes, dice: Dice) -> bytes:
    """A value somewhere in a JSON member is another."""
    found, root = _opened(content)
    name = root + dice.choice((MODEL, MODEL, *TENSORS))
    document = json.loads(found[name])
    for _ in range(dice.choice((1, 1, 2))):
        changed_(document, dice, ASIDE)
    text = json.dumps(document).encode()
    return packed(found | {name: nested(text, dice) if dice.random() < 0.05 else text})


def tensors(content: bytes, dice: Dice) -> bytes:
    """A tensor has another shape, strides, place or member, or the values of another."""
    found, root = _opened(content)
    name = root + dice.choice(TENSORS)
    document = json.loads(found[name])
    described = list(document["config"].values())
    if not described:
        return any_value(content, dice)
    for _ in range(dice.choice((1, 1, 2))):
        one, other = dice.choice(described), dice.choice(described)
        meta = one["tensor_meta"]
        match dice.randrange(10):
            case 8 | 9 if meta["sizes"]:  # fits into its bytes, but not to what reads it
                axis = dice.randrange(len(meta["sizes"]))
                size = meta["sizes"][axis]["as_int"]
                meta["sizes"][axis] = {"as_int": dice.choice((0, 1, size // 2, max(0, size - 1)))}
            case 0:
                meta[dice.choice(("sizes", "strides"))] = [
                    {"as_int": number(dice)} for _ in range(dice.randrange(6))
                ]
            case 1:
                key = dice.choice(("sizes", "strides"))
                if meta[key]:
                    meta[key][dice.randrange(len(meta[key]))] = {"as_int": number(dice)}
            case 2:
                meta["storage_offset"] = {"as_int": number(dice)}
            case 3:
                meta["dtype"] = dice.choice((*DTYPES, 0, 9, 99))
            case 4:
                one["path_name"] = other["path_name"]
            case 5:
                one["tensor_meta"] = other["tensor_meta"]
            case 6:
                one["is_param"] = not one["is_param"]
            case _:
                one["path_name"] = dice.choice(
                    ("../model.json", "weight_999", "weight_0 ", dice.code)
                )
    return packed(found | {name: json.dumps(document).encode()})


def values(content: bytes, dice: Dice) -> bytes:
    """The bytes of a tensor are others: of chance, too few, too many."""
    found = members(content)
    names = [name for name in found if name.rpartition("/")[2].startswith(("weight_", "tensor_"))]
    name = dice.choice(names)
    size = dice.choice((len(found[name]), 0, 1, max(0, len(found[name]) - 1), len(found[name]) + 4))
    return packed(found | {name: dice.randbytes(size)})


def code_for_loaders(content: bytes, dice: Dice) -> bytes:
    """Code where torch.export.load, or another loader, runs it."""
    found, root = _opened(content)
    document = json.loads(found[root + MODEL])
    configs = {root + name: json.loads(found[root + name]) for name in TENSORS}
    pickled = pickle.dumps(Executed(dice.code))
    match dice.randrange(6):
        case 0:
            found[f"{root}data/sample_inputs/model.pt"] = pickled
        case 1:
            document["guards_code"] = [dice.code]
        case 2:
            config = configs[root + TENSORS[0]]["config"]
            one = dice.choice(list(config.values()))
            one["use_pickle"] = True
            found[f"{root}data/weights/{one['path_name']}"] = pickled
        case 3:
            document["range_constraints"] = {dice.code: {"min_val": 0, "max_val": 9}}
        case 4:
            found[f"{root}data/constants/opaque_obj_0"] = pickled
            configs[root + TENSORS[1]]["config"]["opaque_obj_0"] = {"path_name": "opaque_obj_0"}
        case _:
            for node in document["graph_module"]["graph"]["nodes"]:
                node["metadata"] = dict.fromkeys(node["metadata"], dice.code)
    written = {root + MODEL: document, **configs}
    return packed(found | {name: json.dumps(one).encode() for name, one in written.items()})


class Executed:
    """What runs a piece of code when it is unpickled."""

    def __init__(self, code: str) -> None:
        self._code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (self._code,)


def _opened(content: bytes) -> tuple[Members, str]:
    """The members, and the folder that all of them stand in."""
    found = members(content)
    return found, next(iter(found)).partition("/")[0] + "/"


def _node(graph: Graph, dice: Dice) -> dict[str, Any]:
    return dice.choice(graph["nodes"])


def _names(nodes: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Where the nodes name a value that they read."""
    for node in nodes:
        for given in node["inputs"]:
            yield from _references(given["arg"])


def _references(value: Any) -> Iterator[tuple[dict[str, Any], str]]:
    if isinstance(value, dict):
        for key, content in value.items():
            if isinstance(content, str) and key in ("name", "as_name"):
                yield value, key
            else:
                yield from _references(content)
    elif isinstance(value, list):
        for entry in value:
            yield from _references(entry)


GRAPH: Final[Mapping[str, Change]] = {
    "operators": operator_,
    "arguments": argument_,
    "numbers": number_,
    "references": reference_,
    "order of nodes": order_,
    "declared shapes": shape_,
}
PROGRAM: Final[Mapping[str, Callable[[bytes, Dice], bytes]]] = {
    **{name: partial(_graph_changed, change=change) for name, change in GRAPH.items()},
    "any value": any_value,
    "tensors": tensors,
    "values of tensors": values,
    "code for loaders": code_for_loaders,
}
