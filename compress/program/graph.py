"""The graph of a `.pt2` archive, read as data.

`models/model.json` holds what torch.export saw a network do: nodes in the order of their calls,
each an operator, its arguments and the names of its results. Read are names, numbers and
operators of a fixed table. Never read: symbolic expressions, guards, code of any kind, the tree
of inputs, sample inputs, and the stack traces with the author's paths.

The format is torch's `torch/_export/serde/schema.py`, version 8. Importable without torch.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from compress.errors import ProgramError
from compress.program.archive import Archive
from compress.program.arguments import Kind, Reference, Value, read_argument
from compress.program.document import SHOWN, entry, parse, shown, union
from compress.program.operators import ASSERTIONS, NUMBERS, refusal
from compress.program.specs import TensorSpec, tensor_spec

SCHEMA: Final = 8
MAX_JSON_BYTES: Final = 64 << 20
MAX_NODES: Final = 50_000
# Kinds of inputs that are the network's own, and where the name of the tensor stands.
OWN: Final = {
    "parameter": "parameter_name",
    "buffer": "buffer_name",
    "tensor_constant": "tensor_constant_name",
}


@dataclass(frozen=True, slots=True)
class Node:
    """One call. Its results are one tensor or number, or the entries of a list or tuple."""

    name: str
    operator: str
    arguments: Mapping[str, Value]
    """By the names that the operator's schema gives them."""
    results: tuple[str, ...]
    unpacked: bool
    """Whether the results are the entries of what the operator returns."""


@dataclass(frozen=True, slots=True)
class Graph:
    """What a network computes, weights aside."""

    inputs: tuple[str, ...]
    state: Mapping[str, str]
    """Names of values -> names in the state dict, or among the constants."""
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    """What is no tensor is left out."""
    specs: Mapping[str, TensorSpec]

    @property
    def operators(self) -> Counter[str]:
        """How often each operator is called."""
        return Counter(node.operator for node in self.nodes)

    def spec(self, name: str) -> TensorSpec:
        """The shape that is declared for a value.

        Raises:
            ProgramError: none is.
        """
        if name not in self.specs:
            raise ProgramError(f"the graph declares no shape of {name!r}")
        return self.specs[name]


def read_graph(archive: Archive) -> Graph:
    """Read and check the graph of an archive.

    Raises:
        ProgramError: another layout or version, a malformed document, an operator that is not in
            the table, a name that is defined twice, or used before it is defined.
    """
    _check_layout(archive)
    document = parse(archive.read("models/model.json", MAX_JSON_BYTES), "models/model.json")
    major = entry(entry(document, "schema_version", dict), "major", int)
    if major != SCHEMA:
        raise ProgramError(
            f"schema version {major} came, {SCHEMA} was wanted: torch 2.11 to 2.15 write that"
        )
    module = entry(document, "graph_module", dict)
    graph, signature = entry(module, "graph", dict), entry(module, "signature", dict)
    specs = {
        name: tensor_spec(name, meta) for name, meta in entry(graph, "tensor_values", dict).items()
    }
    return _Reader(specs).read(graph, signature)


def _check_layout(archive: Archive) -> None:
    if "data/weights/model.pt" in archive or "serialized_exported_program.json" in archive:
        raise ProgramError(
            "the archive has the layout of torch 2.10 or older: load it there, and write it again "
            "with torch.export.export and torch.export.save of torch 2.11 or newer"
        )
    if "data.pkl" in archive:
        raise ProgramError(
            "a file of torch.save or torch.jit.save came, which only runs; write the network with "
            "torch.export.save(torch.export.export(model.eval(), (x,)), 'model.pt2')"
        )
    if any(name.startswith("data/aotinductor/") for name in archive.members):
        raise ProgramError("the archive holds compiled code: write it with torch.export.save alone")
    for name, wanted in (("archive_format", b"pt2"), ("archive_version", b"0")):
        content = archive.read(name, 16)
        if content != wanted:
            raise ProgramError(f"{name} is {bytes(content)!r}, {wanted!r} was wanted")
    if "byteorder" in archive and archive.read("byteorder", 16) != b"little":
        raise ProgramError("the tensors are big-endian, little-endian ones were wanted")


class _Reader:
    """Nodes in their order, with the names that are defined so far."""

    def __init__(self, specs: Mapping[str, TensorSpec]) -> None:
        self._specs = specs
        self._defined: dict[str, Kind] = {}

    def read(self, graph: dict[str, Any], signature: dict[str, Any]) -> Graph:
        inputs, state = [], {}
        for spec in entry(signature, "input_specs", list):
            name, source = self._input(spec)
            if source is not None:
                state[name] = source
            elif name:
                inputs.append(name)
        if not inputs:
            raise ProgramError("the network takes no tensor: one input at least was wanted")
        nodes = entry(graph, "nodes", list)
        if len(nodes) > MAX_NODES:
            raise ProgramError(f"{len(nodes)} nodes came, at most {MAX_NODES} were wanted")
        read = tuple(
            self._node(node) for node in nodes if entry(node, "target", str) not in ASSERTIONS
        )
        specs = entry(signature, "output_specs", list)
        outputs = tuple(name for spec in specs for name in self._output(*union(spec)))
        if not outputs:
            raise ProgramError("the network returns no tensor")
        return Graph(tuple(inputs), state, read, outputs, self._specs)

    def _input(self, spec: Any) -> tuple[str, str | None]:
        """The name of an input, and that of the tensor behind it; "" for a constant argument."""
        kind, content = union(spec)
        if kind in OWN:
            name = entry(entry(content, "arg", dict), "name", str)
            return self._define(name, "tensor"), entry(content, OWN[kind], str)
        if kind == "constant_input":  # the graph holds what became of it
            return "", None
        if kind == "user_input":
            argument, content = union(entry(content, "arg", dict))
            if argument == "as_tensor":
                return self._define(entry(content, "name", str), "tensor"), None
            if argument == "as_none":
                return "", None
            kind = f"{kind}, {argument}"
        raise ProgramError(f"an input is a {kind[:SHOWN]!r}: tensors were wanted")

    def _node(self, node: Any) -> Node:
        operator = entry(node, "target", str)
        outputs = [union(output) for output in entry(node, "outputs", list)]
        unpacked = len(outputs) > 1 or [kind for kind, _ in outputs] == ["as_tensors"]
        results = [result for kind, content in outputs for result in _results(kind, content)]
        name = next((result for result, _ in results), operator)[:SHOWN]
        if reason := refusal(operator):
            raise ProgramError(f"node {name!r}: {reason}")
        arguments: dict[str, Value] = {}
        try:
            for argument in entry(node, "inputs", list):
                key = entry(argument, "name", str)
                if key in arguments:
                    raise ProgramError(f"argument {key[:SHOWN]!r} comes twice")
                arguments[key] = read_argument(*union(entry(argument, "arg", dict)), self._used)
            if operator in NUMBERS:
                self._refuse_others(arguments)
            for result, kind in results:
                self._define(result, kind)
        except ProgramError as error:
            error.add_note(f"in node {name!r} ({operator})")
            raise
        return Node(name, operator, arguments, tuple(result for result, _ in results), unpacked)

    def _refuse_others(self, arguments: Mapping[str, Value]) -> None:
        """Arithmetic on sizes takes numbers alone: a text times 2^40 fills every memory."""
        for key, value in arguments.items():
            number = isinstance(value, Reference) and self._defined[value.name] == "number"
            if not number and not isinstance(value, int | float):
                raise ProgramError(f"argument {key[:SHOWN]!r} is {shown(value)}, no number")

    def _define(self, name: str, kind: Kind) -> str:
        if name in self._defined:
            raise ProgramError(f"{name[:SHOWN]!r} is defined twice")
        self._defined[name] = kind
        return name

    def _used(self, name: str, kind: Kind) -> Reference:
        if self._defined.get(name) != kind:
            raise ProgramError(
                f"the {kind} {name[:SHOWN]!r} is used before a node defines it, or none does"
            )
        return Reference(name)

    def _output(self, kind: str, content: Any) -> Iterator[str]:
        if kind == "user_output":
            kind, content = union(entry(content, "arg", dict))
            if kind == "as_tensor":
                yield self._used(entry(content, "name", str), "tensor").name
        elif kind != "buffer_mutation":  # such as the counts of batch norm in train mode
            raise ProgramError(
                f"an output is a {kind[:SHOWN]!r}: what a network returns was wanted"
            )


def _results(kind: str, content: Any) -> Iterator[tuple[str, Kind]]:
    """The names in one output of a node."""
    if kind == "as_tensor":
        yield entry(content, "name", str), "tensor"
    elif kind == "as_tensors" and type(content) is list:
        for tensor in content:
            yield entry(tensor, "name", str), "tensor"
    elif kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        form, name = union(content)
        if form != "as_name" or type(name) is not str:
            raise ProgramError(f"a result is {shown(content)}, a name was wanted")
        yield name, "number"
    elif kind != "as_none":
        raise ProgramError(f"a result is {kind[:SHOWN]!r}, which is not read")
