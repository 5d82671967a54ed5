"""The tensors of a network that a file describes, and the names they get.

An exporter keeps the name of a weight where it stores it as it was. Where it folds or transposes
one it makes up a name, and only the node tells which layer it is: by its own name (torch's exporter
of traces) or in its metadata (the one of torch.export). A tensor that belongs to no layer and has
no name of the author's is a constant, which no state dict holds.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Final

from onnx import NodeProto
from torch import Tensor, nn

from compress.errors import ProgramError
from compress.onnx_program.builder import Builder
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

    def __init__(self, builder: Builder) -> None:
        self.tensors: dict[str, Tensor] = {}
        """Of the network."""
        self.persistent: set[str] = set()
        """The names of those that its state dict holds."""
        self.state: dict[str, str] = {}
        """Names of values -> names of tensors of the network."""
        self._builder = builder
        self._stored: dict[str, str] = {}  # names of values -> names in the file
        self._shared: dict[Key, nn.Parameter] = {}
        self._layers: dict[tuple[str, tuple[tuple[str, Key], ...]], dict[str, Reference]] = {}
        self._owners: set[str] = set()  # of the layers
        self._modules: set[str] = set()  # that hold a tensor, and those around them

    def store(self, name: str, values: Tensor) -> Reference:
        """A tensor of the file."""
        reference = self._builder.constant(values)
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
        said = _in_names(nodes)
        wanted = said or _in_scopes(nodes[0]) or kind
        key = (wanted, tuple((entry, _key(values)) for entry, values in tensors.items()))
        if key not in self._layers:
            owner = self._unused(wanted, kind, self._owners if said else self._modules)
            self._owners.add(owner)
            self._modules.update(_prefixes(owner))
            self._layers[key] = {
                entry: self._put(f"{owner}.{entry}", self._own(entry, values))
                for entry, values in tensors.items()
            }
        return self._layers[key]

    def settle_(self, read: Iterable[str]) -> None:
        """Name the constants among the values that are read, and drop the layers that are not.

        Raises:
            ProgramError: a constant holds NaN.
        """
        read = dict.fromkeys(read)
        self.state = {value: name for value, name in self.state.items() if value in read}
        kept = {*self.state.values()}
        self.tensors = {name: tensor for name, tensor in self.tensors.items() if name in kept}
        self.persistent &= kept
        for value in read:
            self._name(value)

    def _name(self, value: str) -> None:
        values = self._builder.known(Reference(value))
        if values is None or value in self.state:
            return
        name = self._stored.get(value, "")
        if values.is_floating_point() and values.isnan().any():
            raise ProgramError(f"the tensor {name[:SHOWN]!r} holds NaN: train again")
        taken = self._modules | self.tensors.keys()
        if _is_path(name) and name not in taken and not MADE_UP.fullmatch(name):
            trained = values.is_floating_point() and bool(values.isfinite().all())
            self.tensors[name] = nn.Parameter(values) if trained else values
            self.persistent.add(name)
        else:
            names = (f"constant_{i}" for i in itertools.count(len(self.tensors)))
            name = next(free for free in names if free not in taken)
            self.tensors[name] = values
        self.state[value] = name

    def _unused(self, wanted: str, kind: str, taken: Set[str]) -> str:
        """`wanted`, or a name like it that is no module and holds none."""
        if wanted not in taken:
            return wanted
        # What owns tensors of a layer shall hold nothing else.
        base = wanted if wanted in self._owners else f"{wanted}.{kind}"
        names = itertools.chain((base,), (f"{base}_{i}" for i in itertools.count(2)))
        return next(name for name in names if name not in self._modules)

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
        reference = self._builder.constant(values.detach())
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


def _in_names(nodes: Sequence[NodeProto]) -> str:
    """The module that the names of weights tell; "" where they do not."""
    for name in (name for node in nodes for name in node.input):
        match = OWNED.fullmatch(name)
        if match and _is_path(match[1]):
            return match[1]
    return ""


def _in_scopes(node: NodeProto) -> str:
    """The module that an exporter noted in a node; "" where it did not."""
    owner = _scope_in_metadata(node) or _scope_in_name(node)
    return owner if _is_path(owner) else ""


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
