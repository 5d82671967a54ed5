"""A matrix held as the factors of a tensor network, and its product with vectors.

Beside a result this file stands alone and needs torch only. The matrix itself is never built: the
vectors are contracted with one factor after the other, all of them at once, in an order that was
planned when the network was described.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

ROWS = ""  # the label of the vectors themselves

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One product of the data with a factor, or with two that are multiplied first.

    The data have the labels `before`; in the product they are parted into those that the factor
    has too and that go on, `along`, those of the data alone, and those that are summed over.
    """

    names: Labels  # of the factors
    factor: Labels  # labels of their product: along, summed, new
    before: Labels
    along: Labels
    rows: Labels  # of the data alone, the vectors among them
    summed: Labels
    new: Labels

    @property
    def after(self) -> Labels:
        """The labels of the product."""
        return self.along + self.rows + self.new


def steps_of(
    inputs: Labels,
    outputs: Labels,
    factors: Mapping[str, Labels],
    order: Sequence[Labels],
) -> Iterator[Step]:
    """The products that an order of the factors asks for.

    Args:
        inputs: labels of the modes of the inputs.
        outputs: likewise.
        factors: name -> labels.
        order: the names of one or two factors for each step.

    Raises:
        ValueError: the order has not each factor once.
    """
    if sorted(name for names in order for name in names) != sorted(factors):
        raise ValueError(f"an order of {order} came for the factors {list(factors)}")
    before: Labels = (ROWS, *inputs)
    unused = dict(factors)
    for names in order:
        held = dict.fromkeys(label for name in names for label in unused.pop(name))
        needed = {ROWS, *outputs}.union(*unused.values())
        along = tuple(label for label in before if label in held and label in needed)
        rows = tuple(label for label in before if label not in held)
        summed = tuple(label for label in before if label in held and label not in needed)
        new = tuple(label for label in held if label not in before and label in needed)
        step = Step(tuple(names), along + summed + new, before, along, rows, summed, new)
        yield step
        before = step.after


class Projection(nn.Module):
    """(..., N) to (..., M), with as many parameters as the factors have.

    Args:
        sizes: of each label.
        inputs: labels of the modes of the inputs, whose product is N, the last varying fastest.
        outputs: likewise, of M.
        factors: name -> labels of its axes.
        order: the names of one or two factors for each step of the product with a vector.

    Raises:
        ValueError: the order has not each factor once.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        inputs: Sequence[str],
        outputs: Sequence[str],
        factors: Mapping[str, Sequence[str]],
        order: Sequence[Sequence[str]],
    ) -> None:
        super().__init__()
        self.sizes = dict(sizes)
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.factors = {name: tuple(labels) for name, labels in factors.items()}
        self.order = tuple(map(tuple, order))
        self.steps = [*steps_of(self.inputs, self.outputs, self.factors, self.order)]
        self.in_features, self.out_features = map(self._size, (self.inputs, self.outputs))
        for name, labels in self.factors.items():
            size = [self.sizes[label] for label in labels]
            self.register_parameter(name, nn.Parameter(torch.empty(size)))
        self.reset_parameters()

    @property
    def description(self) -> dict[str, Any]:
        """The arguments, fit for JSON."""
        return {
            "sizes": self.sizes,
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "factors": {name: list(labels) for name, labels in self.factors.items()},
            "order": [list(names) for names in self.order],
        }

    @property
    def macs(self) -> int:
        """Of one vector; what it takes to multiply factors by each other is `preparing_macs`."""
        return sum(self._size({*step.before, *step.factor} - {ROWS}) for step in self.steps)

    @property
    def preparing_macs(self) -> int:
        """Of `prepared`, once for all vectors of a call."""
        return sum(
            self._size({label for name in step.names for label in self.factors[name]})
            for step in self.steps
            if len(step.names) > 1
        )

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Normal values, so that entries of the matrix have the variance 2 / (N + M).

        Of Glorot and Bengio, "Understanding the Difficulty of Training Deep Feedforward Neural
        Networks", 2010. An entry is a sum of `paths` products of one entry of each factor.
        """
        paths = self._size(self.sizes.keys() - {*self.inputs, *self.outputs})
        variance = 2 / (self.in_features + self.out_features)
        deviation = (variance / paths) ** (0.5 / len(self.factors))
        for factor in self.parameters():
            nn.init.normal_(factor, std=deviation, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """(..., N) to (..., M)."""
        rows = self.project(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), self.prepared())
        return rows.reshape(*x.shape[:-1], self.out_features)

    def prepared(self) -> list[Tensor]:
        """The matrices of the steps, (along, summed, new) or (summed, new): to be used many times.

        Gradients go through them to the factors.
        """
        return [self._matrix(step) for step in self.steps]

    def project(self, x: Tensor, matrices: Sequence[Tensor], add: Tensor | None = None) -> Tensor:
        """(T, N) to (T, M), with what `prepared` gave; `add` (T, M) or (M,) is added."""
        rows = x.shape[0]
        for step, matrix in zip(self.steps[:-1], matrices, strict=False):
            x = self._product(step, x, matrix, rows)
        step, matrix = self.steps[-1], matrices[-1]
        in_order = step.after == (ROWS, *self.outputs)
        if add is not None and in_order and step.rows == (ROWS,):
            return torch.addmm(add, self._parted(step, x, rows), matrix)
        x = self._product(step, x, matrix, rows)
        if not in_order:
            x = x.reshape(self._shape(step.after, rows))
            x = x.permute([step.after.index(label) for label in (ROWS, *self.outputs)])
        x = x.reshape(rows, self.out_features)
        return x if add is None else x + add

    def extra_repr(self) -> str:
        """The sizes."""
        shapes = (f"{name} {tuple(p.shape)}" for name, p in self.named_parameters())
        return f"{self.in_features}, {self.out_features}, {', '.join(shapes)}"

    def _matrix(self, step: Step) -> Tensor:
        number = {label: i for i, label in enumerate(self.sizes)}
        operands: list[Any] = []
        for name in step.names:
            operands += [self.get_parameter(name), [number[x] for x in self.factors[name]]]
        value = torch.einsum(*operands, [number[label] for label in step.factor])
        parts = (step.along, step.summed, step.new) if step.along else (step.summed, step.new)
        return value.reshape([self._size(part) for part in parts])

    def _product(self, step: Step, x: Tensor, matrix: Tensor, rows: int) -> Tensor:
        parted = self._parted(step, x, rows)
        return torch.bmm(parted, matrix) if step.along else torch.mm(parted, matrix)

    def _parted(self, step: Step, x: Tensor, rows: int) -> Tensor:
        """The data as a matrix (rows, summed), or one for each value of what goes along."""
        wanted = step.along + step.rows + step.summed
        if wanted != step.before:
            x = x.reshape(self._shape(step.before, rows))
            x = x.permute([step.before.index(label) for label in wanted])
        height = rows * self._size(label for label in step.rows if label != ROWS)
        size = (height, self._size(step.summed))
        return x.reshape(self._size(step.along), *size) if step.along else x.reshape(size)

    def _shape(self, labels: Labels, rows: int) -> list[int]:
        return [rows if label == ROWS else self.sizes[label] for label in labels]

    def _size(self, labels: Any) -> int:
        return math.prod(self.sizes[label] for label in labels)
