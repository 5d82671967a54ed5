"""The tensors of a network that a file describes, and the names they get.

An exporter keeps the name of a weight where it stores it as it was. Where it folds or transposes
one it makes up a name, and only the node tells which layer it is: by its own name (torch's exporter
of traces) or in its metadata (the one of torch.export). A tensor that belongs to no layer and has
no name of the author's is a constant, which no state dict holds.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from onnx import NodeProto
from torch import Tensor, nn

from compress.errors import ProgramError
from compress.onnx_program.trace import Trace
from compress.program.arguments import Reference
from compress.program.assembly import MAX_DEPTH, NAME
from compress.program.document import SHOWN

STATISTICS: Final = ("running_mean", "running_var")
OWNED: Final = re.compile(r"(.+)[._](?:weight|bias|running_mean|running_var)")
MADE_UP: Final = re.compile(r"val_\d+|_?\d+")  # by torch's exporters
SCOPES: Final = "pkg.torch.onnx.name_scopes"

Key = tuple[int, tuple[int, ...], tuple[int, ...]]


class Weights:
    """Constants by the names that they have in the file, and in the network."""

    def __init__(self, trace: Trace) -> None:
        self.tensors: dict[str, Tensor] = {}
        """Of the network."""
        self.persistent: set[str] = set()
        """The names of those that its state dict holds."""
        self.state: dict[str, str] = {}
        """Names of values -> names of tensors of the network."""
        self._trace = trace
        self._stored: dict[str, str] = {}  # names of values -> names in the file
        self._shared: dict[Key, nn.Parameter] = {}
        self._layers: dict[tuple[str, tuple[tuple[str, Key], ...]], dict[str, Reference]] = {}
        self._modules: set[str] = set()  # that tensors have been put into, and those around them

    def store(self, name: str, values: Tensor) -> Reference:
        """A tensor of the file."""
        reference = self._trace.constant(values)
        self._stored[reference.name] = name
        if _is_path(name):
            self._modules.update(_prefixes(name.rpartition(".")[0]))
        return reference

    def layer(
        self, nodes: Sequence[NodeProto], kind: str, tensors: Mapping[str, Tensor]
    ) -> dict[str, Reference]:
        """The tensors of a layer, under a name that nothing else has.

        Args:
            nodes: of the file, that the layer is.
            kind: what a layer without a name is called.
            tensors: what torch's layer calls them -> values; matrices that are one tensor stay
                one, vectors do not: exporters store equal ones once, and all fresh norms are equal.

        Raises:
            ProgramError: values that are not finite.
        """
        wanted = self._owner(nodes) or kind
        key = (wanted, tuple((entry, _key(values)) for entry, values in tensors.items()))
        if key not in self._layers:
            owner = self._unused(wanted, kind)
            self._modules.update(_prefixes(owner))
            self._layers[key] = {
                entry: self._put(f"{owner}.{entry}", self._own(entry, values))
                for entry, values in tensors.items()
            }
        return self._layers[key]

    def name(self, reference: str) -> None:
        """Name a constant that no layer owns."""
        values = self._trace.known(Reference(reference))
        if values is None or reference in self.state:
            return
        stored = self._stored.get(reference, "")
        if values.is_floating_point() and values.isnan().any():
            raise ProgramError(f"the tensor {stored[:SHOWN]!r} holds NaN: train again")
        free = _is_path(stored) and stored not in self._modules and stored not in self.tensors
        if free and not MADE_UP.fullmatch(stored):
            trained = values.is_floating_point() and bool(values.isfinite().all())
            self.tensors[stored] = nn.Parameter(values) if trained else values
            self.persistent.add(stored)
        else:
            stored = f"constant_{len(self.state)}"
            while stored in self._modules or stored in self.tensors:
                stored += "_"
            self.tensors[stored] = values
        self.state[reference] = stored

    def _owner(self, nodes: Sequence[NodeProto]) -> str:
        """The module that nodes are, as far as the file tells; "" where it does not."""
        for name in (name for node in nodes for name in node.input):
            match = OWNED.fullmatch(name)
            if match and _is_path(match[1]) and not MADE_UP.fullmatch(match[1]):
                return match[1]
        owner = _scope_in_metadata(nodes[0]) or _scope_in_name(nodes[0])
        return owner if _is_path(owner) else ""

    def _unused(self, wanted: str, kind: str) -> str:
        """`wanted`, or a name like it that is no module and holds none."""
        stored = any(name.rpartition(".")[0] == wanted for name in self._stored.values())
        taken = {name.rpartition(".")[0] for name in self.tensors}
        if wanted not in taken and (wanted not in self._modules or stored):
            return wanted
        count, base = 1, f"{wanted}.{kind}" if wanted not in taken else f"{wanted}_"
        while f"{base}{count}" in self._modules or f"{base}{count}" in self.tensors:
            count += 1
        return f"{base}{count}"

    def _own(self, entry: str, values: Tensor) -> Tensor:
        if not values.isfinite().all():
            raise ProgramError(f"its {entry} holds NaN or infinity: train again or mend the file")
        if entry in STATISTICS:
            return values.clone()
        if values.dim() < 2:
            return nn.Parameter(values.clone(), values.is_floating_point())
        key = _key(values)
        if key not in self._shared:
            self._shared[key] = nn.Parameter(values.contiguous(), values.is_floating_point())
        return self._shared[key]

    def _put(self, name: str, values: Tensor) -> Reference:
        reference = self._trace.constant(values.detach())
        self.tensors[name] = values
        self.persistent.add(name)
        self.state[reference.name] = name
        return reference


def _key(values: Tensor) -> Key:
    """The same for views of the same values."""
    return values.data_ptr(), tuple(values.shape), tuple(values.stride())


def _is_path(name: str) -> bool:
    """Whether a name is one that torch could give."""
    parts = name.split(".")
    return len(parts) <= MAX_DEPTH and all(map(NAME.fullmatch, parts))


def _prefixes(owner: str) -> Iterator[str]:
    """A module and those around it."""
    parts = owner.split(".")
    return (".".join(parts[: i + 1]) for i in range(len(parts)))


def _scope_in_metadata(node: NodeProto) -> str:
    """The innermost module of "['', 'layer1', 'layer1.0', 'conv2d']", whose last is the call."""
    texts = [entry.value for entry in node.metadata_props if entry.key == SCOPES]
    scopes = re.findall(r"'([^']*)'", texts[0]) if texts else []
    return scopes[-2] if len(scopes) > 1 else ""


def _scope_in_name(node: NodeProto) -> str:
    """The module of "/layer1/layer1.0/conv1/Conv", in which a part repeats those before it."""
    path: list[str] = []
    for name in node.name.split("/")[1:-1]:
        parts = name.split(".")
        repeated = (k for k in range(len(parts) - 1, 0, -1) if path[-k:] == parts[:k])
        path = path[: len(path) - next(repeated, 0)] + parts
    return ".".join(path)
