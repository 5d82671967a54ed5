"""A graph of aten operators in the making, tried on tensors without memory as it grows.

Each operator is called at once, on fake tensors of two sizes. So the shape of every value is known:
an axis that has the same length in both runs is fixed, and the length of any other is a number that
the graph computes. What depends on constants alone is computed for real, and is a constant again.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from compress.errors import ProgramError
from compress.program.arguments import Reference, Setting, Value, references
from compress.program.calls import DEVICE, argument_names, passed, written
from compress.program.graph import MAX_NODES, Node
from compress.program.operators import ATEN, OPERATORS, SIZE
from compress.program.specs import DTYPES, MAX_AXES, MAX_VALUES, TensorSpec
from compress.program.steps import argument_of, function_of
from compress.program.trial import reason

MAX_CALLS: Final = 4 * MAX_NODES
MAX_FOLDED_BYTES: Final = 1 << 30  # of all constants that are computed
NUMBERS_OF_DTYPES: Final = {name: number for number, name in DTYPES.items()}

Size = int | Reference


def dtype_setting(dtype: torch.dtype) -> Setting:
    """A dtype as an argument."""
    return Setting("dtype", NUMBERS_OF_DTYPES[name_of(dtype)])


def name_of(dtype: torch.dtype) -> str:
    """A dtype's name in torch."""
    return str(dtype).removeprefix("torch.")


class Builder:
    """The nodes so far, and what is known of their results.

    `node` is the name of the file's node that is being translated.
    """

    def __init__(self) -> None:
        self.node = ""
        self.inputs: dict[str, TensorSpec] = {}
        self._mode = FakeTensorMode()
        self._nodes: list[Node] = []
        self._runs: dict[str, tuple[Any, Any]] = {}  # what each value is in the two runs
        self._constants: dict[str, Tensor] = {}
        self._zeros: set[str] = set()
        self._sizes: dict[tuple[str, int], Reference] = {}
        self._folded_bytes = 0

    def input(self, spec: TensorSpec, other: Sequence[int]) -> Reference:
        """An input, of the shape of `spec` in the first run and of `other` in the second."""
        dtype = getattr(torch, spec.dtype)
        with self._mode:
            reference = self._define(
                torch.zeros(spec.shape, dtype=dtype), torch.zeros(tuple(other), dtype=dtype)
            )
        self.inputs[reference.name] = spec
        return reference

    def constant(self, values: Tensor) -> Reference:
        """A value that is known. It is a tensor of the network where a node reads it."""
        fake = self._mode.from_tensor(values)
        reference = self._define(fake, fake)
        self._constants[reference.name] = values
        return reference

    def known(self, reference: object) -> Tensor | None:
        """The values of a constant; None for what is computed from inputs."""
        return self._constants.get(reference.name) if isinstance(reference, Reference) else None

    def is_zero(self, reference: Reference) -> bool:
        """Whether a value is known to be zeros, whatever its size."""
        known = self.known(reference)
        return reference.name in self._zeros or (known is not None and not known.any())

    def keep_zero(self, reference: Reference) -> Reference:
        """Note that a value is zeros."""
        self._zeros.add(reference.name)
        return reference

    def dtype(self, reference: Reference) -> torch.dtype:
        return self._runs[reference.name][0].dtype

    def axes(self, reference: Reference) -> int:
        return self._runs[reference.name][0].dim()

    def shape(self, reference: Reference) -> tuple[Size, ...]:
        """The length of each axis: an integer, or a number that the graph computes."""
        return tuple(self.length(reference, axis) for axis in range(self.axes(reference)))

    def length(self, reference: Reference, axis: int) -> Size:
        """The length of one axis."""
        first, second = (value.shape[axis] for value in self._runs[reference.name])
        if first == second:
            return first
        key = (reference.name, axis % self.axes(reference))
        if key not in self._sizes:
            (size,) = self._record(SIZE, {"self": reference, "dim": key[1]}, unpacked=False)
            self._sizes[key] = size
        return self._sizes[key]

    def emit(self, operator: str, *values: Value, **named: Value) -> Reference:
        """Call an operator of one result.

        Args:
            operator: of aten, without the namespace.
            values: its first arguments, in the order of its schema.
            named: further ones.

        Raises:
            ProgramError: torch refuses the call, or what it returns is too large.
        """
        (result,) = self._record(*_given(operator, values, named), unpacked=False)
        return result

    def emit_several(self, operator: str, *values: Value, **named: Value) -> tuple[Reference, ...]:
        """Call an operator that returns a list or a tuple of tensors."""
        return self._record(*_given(operator, values, named), unpacked=True)

    def number(self, operator: str, *values: Size) -> Size:
        """Compute with sizes, by an operator of the table's NUMBERS."""
        if all(isinstance(value, int) for value in values):
            return int(function_of(operator, OPERATORS)(*values))
        numbered = {str(place): value for place, value in enumerate(values)}
        (result,) = self._record(operator, numbered, unpacked=False)
        return result

    def live(self, outputs: Sequence[Reference]) -> tuple[Node, ...]:
        """The nodes that these values need, in their order."""
        needed = {output.name for output in outputs}
        nodes = []
        for node in reversed(self._nodes):
            if not needed.isdisjoint(node.results):
                needed.update(references(node.arguments))
                nodes.append(node)
        return tuple(nodes[::-1])

    @property
    def specs(self) -> dict[str, TensorSpec]:
        """The shape of every tensor in the first run; symbols stand for the inputs' alone."""
        computed = {
            name: TensorSpec(name_of(value.dtype), tuple(value.shape), (None,) * value.dim())
            for name, (value, _) in self._runs.items()
            if isinstance(value, Tensor)
        }
        return computed | self.inputs

    def _define(self, *runs: Any) -> Reference:
        name = f"value_{len(self._runs)}"
        first, second = runs
        self._runs[name] = (first, second)
        return Reference(name)

    def _record(
        self, operator: str, arguments: Mapping[str, Value], *, unpacked: bool
    ) -> tuple[Reference, ...]:
        """Call an operator in both runs; without a node where its results are constants."""
        if len(self._nodes) == MAX_CALLS:
            raise ProgramError(f"the network makes more than {MAX_CALLS} calls")
        node = Node(self.node, operator, arguments, (), unpacked)
        with self._mode:
            first, second = (self._tried(node, run) for run in (0, 1))
        for result in (*first, *second):
            self._check(result)
        if all(name in self._constants for name in references(arguments)):
            self._folded_bytes += sum(result.nbytes for result in first)
            if self._folded_bytes > MAX_FOLDED_BYTES:
                raise ProgramError(
                    f"constants of more than {MAX_FOLDED_BYTES} bytes are computed: export the "
                    "network with them folded"
                )
            return tuple(map(self.constant, self._tried(node, None)))
        results = tuple(self._define(*pair) for pair in zip(first, second, strict=True))
        names = tuple(result.name for result in results)
        self._nodes.append(Node(self.node, operator, arguments, names, unpacked))
        return results

    def _tried(self, node: Node, run: int | None) -> list[Any]:
        """What the operator of a node returns in a run; of constants, where that is None."""
        args, kwargs = passed(node)
        try:
            with torch.no_grad():
                result = function_of(node.operator, OPERATORS)(
                    *(self._filled(value, run) for value in args),
                    **{key: self._filled(value, run) for key, value in kwargs.items()},
                )
        except Exception as error:  # whatever torch raises
            raise ProgramError(f"its sizes or settings do not fit: {reason(error)}") from error
        return list(result) if node.unpacked else [result]

    def _filled(self, value: Any, run: int | None) -> Any:
        if isinstance(value, tuple):
            return [self._filled(entry, run) for entry in value]
        if isinstance(value, Reference):
            return self._constants[value.name] if run is None else self._runs[value.name][run]
        if isinstance(value, Setting):
            return torch.device("cpu") if value == DEVICE else argument_of(written(value))
        return value

    def _check(self, result: Any) -> None:
        if isinstance(result, Tensor) and (
            result.dim() > MAX_AXES or result.numel() > MAX_VALUES or result.is_complex()
        ):
            shape = f"{name_of(result.dtype)} {list(result.shape)[: MAX_AXES + 1]}"
            raise ProgramError(
                f"it returns {shape}: at most {MAX_AXES} axes and {MAX_VALUES} real values were "
                "wanted"
            )


def _given(
    operator: str, values: Sequence[Value], named: Mapping[str, Value]
) -> tuple[str, dict[str, Value]]:
    names = argument_names(ATEN + operator)
    return ATEN + operator, dict(zip(names, values, strict=False)) | dict(named)
