"""One node of an ONNX file as those who translate it see it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from onnx import AttributeProto, NodeProto, TensorProto, numpy_helper
from torch import Tensor

from compress.errors import ProgramError
from compress.onnx_program.builder import Builder, Size, dtype_setting
from compress.onnx_program.model_file import DTYPES
from compress.onnx_program.weights import Weights
from compress.program.arguments import Reference, Setting
from compress.program.document import SHOWN

MAX_SIZES: Final = 64  # of a list that gives a shape


@dataclass(frozen=True, slots=True)
class Sizes:
    """A vector of sizes, or one of them, that the graph computes: no tensor is made of it."""

    entries: tuple[Size, ...]
    is_scalar: bool = False


Result = Reference | Sizes


@dataclass(frozen=True, slots=True)
class Batch:
    """The batch that a file was written for, and the one that comes."""

    written: int
    size: Size


@dataclass(frozen=True, slots=True)
class Bias:
    """A constant vector, and the node that adds it."""

    node: NodeProto
    values: Tensor


@dataclass(frozen=True, slots=True)
class Call:
    """A node with what its inputs are."""

    node: NodeProto
    inputs: tuple[Result | None, ...]
    builder: Builder
    weights: Weights
    batch: "Batch | None"
    """Where the exporter fixed it."""
    attributes: Mapping[str, Any]
    bias: "Bias | None" = None
    """What is added to the result, where nothing else reads that."""

    def __len__(self) -> int:
        return len(self.inputs)

    def has(self, place: int) -> bool:
        """Whether an input that may be left out is given."""
        return place < len(self.inputs) and self.inputs[place] is not None

    def tensor(self, place: int) -> Reference:
        """An input as a tensor.

        Raises:
            ProgramError: it is left out.
        """
        value = self.inputs[place] if place < len(self.inputs) else None
        if value is None:
            raise ProgramError(f"input {place} is missing")
        if isinstance(value, Reference):
            return value
        integer = dtype_setting(torch.int64)
        parts = tuple(
            self.builder.emit("scalar_tensor.default", entry, dtype=integer)
            for entry in value.entries
        )
        return parts[0] if value.is_scalar else self.builder.emit("stack.default", parts)

    def optional(self, place: int) -> Reference | None:
        """An input as a tensor, or None where it is left out."""
        return self.tensor(place) if self.has(place) else None

    def known(self, place: int) -> Tensor | None:
        """The values of an input that is constant."""
        return self.builder.known(self.inputs[place]) if self.has(place) else None

    def setting(self, place: int) -> Tensor:
        """The values of an input that has to be constant.

        Raises:
            ProgramError: it is computed.
        """
        values = self.known(place)
        if values is None:
            raise ProgramError(f"input {place} is computed, a constant was wanted")
        return values

    def number(self, place: int) -> float | int | bool:
        """The one value of a constant."""
        values = self.setting(place)
        if values.numel() != 1:
            raise ProgramError(f"input {place} has {values.numel()} values, one was wanted")
        return values.item()

    def integers(self, place: int) -> tuple[int, ...]:
        """The values of a constant vector of integers."""
        values = self.setting(place)
        if values.is_floating_point() or values.numel() > MAX_SIZES:
            raise ProgramError(f"input {place} holds no {MAX_SIZES} integers or fewer")
        return tuple(values.flatten().tolist())

    def sizes(self, place: int) -> tuple[Size, ...]:
        """An input that gives sizes: constants, or numbers that the graph computes."""
        value = self.inputs[place] if self.has(place) else None
        return value.entries if isinstance(value, Sizes) else self.integers(place)

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute of the type that its default has.

        Raises:
            ProgramError: it is of another type.
        """
        if name not in self.attributes:
            return default
        value = self.attributes[name]
        if default is not None and type(value) is not type(default):
            raise ProgramError(f"attribute {name!r} is of another type than ONNX says")
        return value

    def dtype(self, name: str) -> Setting:
        """An attribute that is a dtype, as an argument."""
        number = self.attribute(name, 0)
        if number not in DTYPES:
            raise ProgramError(f"{name}={number} is a dtype that is not read")
        return dtype_setting(getattr(torch, DTYPES[number]))

    def axis(self, place: int = 0, default: int = -1) -> int:
        """The attribute `axis`, counted from the front of an input's axes."""
        return self.counted(self.attribute("axis", default), self.builder.axes(self.tensor(place)))

    def counted(self, axis: int, axes: int) -> int:
        """An axis counted from the front.

        Raises:
            ProgramError: there is none such.
        """
        if not -axes <= axis < max(axes, 1):
            raise ProgramError(f"axis {axis} came, there are {axes}")
        return axis % max(axes, 1)

    def refuse_unless(self, name: str, *wanted: Any) -> None:
        """Refuse another value of an attribute than these, of which the first is its default.

        Raises:
            ProgramError: it has one.
        """
        if (value := self.attribute(name, wanted[0])) not in wanted:
            raise ProgramError(f"{name}={str(value)[:SHOWN]} is not read")

    def refuse_input(self, place: int, name: str) -> None:
        """Refuse an input that may be left out.

        Raises:
            ProgramError: it is given.
        """
        if self.has(place):
            raise ProgramError(f"its input {name!r} is not read")

    def emit(self, operator: str, *values: Any, **named: Any) -> Reference:
        """`Builder.emit`."""
        return self.builder.emit(operator, *values, **named)


Translation = Callable[[Call], Result | Sequence[Result]]


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """The attributes of a node as numbers, text, tuples and tensors.

    Raises:
        ProgramError: one comes twice.
    """
    attributes: dict[str, Any] = {}
    for attribute in node.attribute:
        if attribute.name in attributes:
            raise ProgramError(f"attribute {attribute.name[:SHOWN]!r} comes twice")
        attributes[attribute.name] = _READ[attribute.type](attribute)
    return attributes


def values_of(tensor: TensorProto) -> Tensor:
    """The values of a tensor in the file.

    Raises:
        ProgramError: there are more or fewer than its shape says.
    """
    try:
        array = numpy_helper.to_array(tensor)
        if str(array.dtype) != DTYPES.get(tensor.data_type) or array.shape != tuple(tensor.dims):
            raise ValueError(f"{array.dtype} {array.shape} came out")
    except (ValueError, TypeError, OverflowError) as error:
        raise ProgramError(
            f"the tensor {tensor.name[:SHOWN]!r} of shape {list(tensor.dims)} has other values "
            "than its shape and dtype say: the file is damaged"
        ) from error
    return torch.from_numpy(array.copy(order="C"))


_READ: Final[Mapping[int, Callable[[AttributeProto], Any]]] = {
    AttributeProto.FLOAT: lambda attribute: attribute.f,
    AttributeProto.INT: lambda attribute: attribute.i,
    AttributeProto.STRING: lambda attribute: attribute.s.decode("utf-8", "replace"),
    AttributeProto.TENSOR: lambda attribute: values_of(attribute.t),
    AttributeProto.FLOATS: lambda attribute: tuple(attribute.floats),
    AttributeProto.INTS: lambda attribute: tuple(attribute.ints),
    AttributeProto.STRINGS: lambda attribute: tuple(
        text.decode("utf-8", "replace") for text in attribute.strings
    ),
}
