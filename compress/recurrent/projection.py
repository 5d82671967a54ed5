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


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Axes of the data put into another order; plain numbers, for compilers to see through."""

    before: tuple[int, ...]  # sizes of the axes before that of the vectors
    behind: tuple[int, ...]
    axes: tuple[int, ...] | None  # in their new order, None where it is the old one

    @classmethod
    def of(cls, labels: Labels, wanted: Labels, sizes: Mapping[str, int]) -> "Arrangement":
        """From one order of labels, the vectors' among them, to another."""
        rows = labels.index(ROWS)
        before, behind = (
            tuple(sizes[label] for label in part) for part in (labels[:rows], labels[rows + 1 :])
        )
        axes = tuple(labels.index(label) for label in wanted)
        return cls(before, behind, None if labels == wanted else axes)

    def __call__(self, x: Tensor, rows: int) -> Tensor:
        """The data of so many vectors, to be reshaped."""
        if self.axes is None:
            return x
        return x.reshape(*self.before, rows, *self.behind).permute(self.axes)


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
        self._arrangements = [
            Arrangement.of(step.before, step.along + step.rows + step.summed, self.sizes)
            for step in self.steps
        ]
        outputs_first = (ROWS, *self.outputs)
        self._arrange_outputs = Arrangement.of(self.steps[-1].after, outputs_first, self.sizes)
        self._heights = [self._size(set(step.rows) - {ROWS}) for step in self.steps]
        self.ends_dense = self.steps[-1].rows == (ROWS,) and self._arrange_outputs.axes is None
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
        rows, last = x.shape[0], matrices[-1]
        x = self.leading(x, matrices)
        in_order = self._arrange_outputs.axes is None
        if add is not None and in_order and last.ndim == 2:
            add = add.expand(rows, self.out_features).reshape(x.shape[0], last.shape[1])
            return torch.addmm(add, x, last).reshape(rows, self.out_features)
        x = torch.bmm(x, last) if last.ndim > 2 else torch.mm(x, last)
        x = self._arrange_outputs(x, rows).reshape(rows, self.out_features)
        return x if add is None else x + add

    def leading(self, x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
        """All steps but the last: what is then multiplied by the last matrix.

        (T, N) to (T, S), where the last matrix is (S, M).
        """
        rows = x.shape[0]
        for i, matrix in enumerate(matrices):
            x = self._arrangements[i](x, rows)
            x = x.reshape(*matrix.shape[:-2], rows * self._heights[i], matrix.shape[-2])
            if i < len(matrices) - 1:
                x = torch.bmm(x, matrix) if matrix.ndim > 2 else torch.mm(x, matrix)
        return x

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

    def _size(self, labels: Any) -> int:
        return math.prod(self.sizes[label] for label in labels)
