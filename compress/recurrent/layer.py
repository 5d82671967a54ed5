"""LSTM, GRU and RNN whose weights may be factorised: each a drop-in for torch's layer of its name.

Beside a result this file stands alone and needs torch only. A weight is either torch's own
parameter, under its own name, or a module of that name with `prepared` and `project`, as a
`Projection` has: without any, the state dict is that of torch's layer. All gates are one product,
and so are the inputs of all time steps.

Where the weights of the states are dense, torch's fused kernel does the steps. Else a loop does,
and while a network is exported a `scan`, so that the number of steps stays free.

Letters in shapes: T, time steps; N, batch; I, input_size; H, hidden_size; P, width of the output,
H or proj_size; G, H for each gate.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

State = tuple[Tensor, ...]  # (h, c) of an LSTM, (h,) of the others, each (N, width)
Product = Callable[[Tensor, Tensor | None], Tensor]  # of rows and a weight, plus the second
Step = Callable[[Tensor, State, Product, Tensor | None], State]


def lstm_step(gates: Tensor, state: State, product: Product, _: Tensor | None) -> State:
    """The next state, by the inputs' share of the gates (N, 4H) with both biases."""
    h, c = state
    i, f, g, o = product(h, gates).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_step(gates: Tensor, state: State, product: Product, bias: Tensor | None) -> State:
    """Likewise, with a bias of the states of its own, which the reset gate scales too."""
    (h,) = state
    r, z, n = gates.chunk(3, -1)
    r_h, z_h, n_h = product(h, bias).chunk(3, -1)
    n = (n + (r + r_h).sigmoid() * n_h).tanh()
    return (torch.lerp(n, h, (z + z_h).sigmoid()),)


def tanh_step(gates: Tensor, state: State, product: Product, _: Tensor | None) -> State:
    """Likewise, of a single gate."""
    return (product(state[0], gates).tanh(),)


def relu_step(gates: Tensor, state: State, product: Product, _: Tensor | None) -> State:
    """Likewise."""
    return (product(state[0], gates).relu(),)


@dataclass(frozen=True, slots=True)
class Cell:
    """One kind of recurrence."""

    gates: int
    states: int
    step: Step
    fused: Callable[..., Any]  # all steps of a layer by torch's kernel


CELLS: dict[str, Cell] = {
    "LSTM": Cell(4, 2, lstm_step, torch.lstm),
    "GRU": Cell(3, 1, gru_step, torch.gru),
    "RNN_TANH": Cell(1, 1, tanh_step, torch.rnn_tanh),
    "RNN_RELU": Cell(1, 1, relu_step, torch.rnn_relu),
}


class Recurrent(nn.Module):
    """What LSTM, GRU and RNN have in common; see torch.nn for the arguments.

    Args:
        mode: a key of `CELLS`.
        weights: name of a weight, as torch has it -> the module that stands in for it.

    Raises:
        ValueError: there is no weight of that name, or it has another size.
    """

    stands_in = True  # in place of a layer of torch: a mark, as each result has a class of its own

    def __init__(  # noqa: PLR0917 (torch has them so)
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        weights: Mapping[str, nn.Module] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.mode = mode
        self.input_size, self.hidden_size = input_size, hidden_size
        self.num_layers, self.bias, self.batch_first = num_layers, bias, batch_first
        self.dropout, self.bidirectional, self.proj_size = dropout, bidirectional, proj_size
        given: dict[str, Any] = dict(weights or {})
        for name, size in self._sizes():
            module = given.pop(name, None)
            if module is None:
                empty = torch.empty(size, device=device, dtype=dtype)
                self.register_parameter(name, nn.Parameter(empty))
            elif (came := (module.out_features, module.in_features)) != size:
                raise ValueError(f"a module of size {came} came for {name}; {size} was wanted")
            else:
                self.add_module(name, module.to(device=device, dtype=dtype))
        if given:
            raise ValueError(f"there are no weights {sorted(given)}")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Dense weights and biases as torch has them; modules stay as they are."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters(recurse=False):
            nn.init.uniform_(parameter, -bound, bound)

    def flatten_parameters(self) -> None:
        """Does nothing: for callers of torch's layers."""

    @property
    def cell(self) -> Cell:
        """Its kind; looked up, since a copy or a pickle has its name alone."""
        return CELLS[self.mode]

    @property
    def width(self) -> int:
        """P, of the output of one way."""
        return self.proj_size or self.hidden_size

    @property
    def suffixes(self) -> list[list[str]]:
        """What the names of the weights end with: of each layer, of its one or two ways."""
        ways = ("", "_reverse")[: 1 + self.bidirectional]
        return [[f"_l{layer}{way}" for way in ways] for layer in range(self.num_layers)]

    @property
    def description(self) -> dict[str, Any]:
        """What `build` needs, fit for JSON."""
        names = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout")
        arguments = {name: getattr(self, name) for name in (*names, "bidirectional", "proj_size")}
        weights = {name: module.description for name, module in self.named_children()}
        return {"mode": self.mode, "arguments": arguments, "weights": weights}

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:  # noqa: A002 (as torch)
        """The outputs of the last layer, and the last state of every layer and way.

        Args:
            input: (T, N, I), (N, T, I) where batch_first, (T, I), or a packed sequence.
            hx: (layers * ways, N, P), of an LSTM a pair of it and (layers * ways, N, H); zeros
                if None.

        Raises:
            ValueError: a tensor is not of that shape.
        """
        packed = isinstance(input, PackedSequence)
        data, sizes = (input.data, input.batch_sizes.tolist()) if packed else (input, None)
        if data.ndim not in ((2,) if packed else (2, 3)) or data.shape[-1] != self.input_size:
            raise ValueError(
                f"an input of {tuple(data.shape)} came; {self.input_size} features were wanted"
            )
        single = not packed and data.ndim == 2
        if single:
            data = data.unsqueeze(1)
        elif not packed and self.batch_first:
            data = data.transpose(0, 1)
        state = self._state(hx, data, sizes[0] if sizes else data.shape[1], single)
        if packed and input.sorted_indices is not None:
            state = tuple(part.index_select(1, input.sorted_indices) for part in state)

        data, state = self._stack(data, state, sizes)
        if packed:
            data = PackedSequence(
                data, input.batch_sizes, input.sorted_indices, input.unsorted_indices
            )
            if input.unsorted_indices is not None:
                state = tuple(part.index_select(1, input.unsorted_indices) for part in state)
        elif single:
            data, state = data.squeeze(1), tuple(part.squeeze(1) for part in state)
        elif self.batch_first:
            data = data.transpose(0, 1)
        return data, state if len(state) > 1 else state[0]

    def _stack(
        self, data: Tensor, state: State, sizes: Sequence[int] | None
    ) -> tuple[Tensor, State]:
        """All layers: outputs and last states, (layers * ways, N, width) each."""
        rest = zip(*(part.unbind(0) for part in state), strict=True)
        last = []
        for layer, suffixes in enumerate(self.suffixes):
            if layer and self.dropout:
                data = F.dropout(data, self.dropout, self.training)
            ways = [self.way(suffix, data, next(rest), sizes) for suffix in suffixes]
            data = torch.cat([outputs for outputs, _ in ways], -1)
            last += [state for _, state in ways]
        return data, tuple(torch.stack(parts) for parts in zip(*last, strict=True))

    def way(
        self, suffix: str, data: Tensor, state: State, sizes: Sequence[int] | None
    ) -> tuple[Tensor, State]:
        """One layer in one direction.

        Args:
            suffix: of its weights' names.
            data: (T, N, I), or (sum of the sizes, I) of a packed sequence.
            state: the first.
            sizes: of a packed sequence, how many rows each step has; they fall.

        Returns:
            The outputs, in place of the I features P, and the last state.
        """
        reverse = suffix.endswith("_reverse")
        if sizes is None and not torch.compiler.is_exporting() and self._fuses(suffix):
            return self._fused(suffix, data.flip(0) if reverse else data, state, reverse)
        input_bias, state_bias = self._biases(suffix)
        product = self._product(f"weight_ih{suffix}")
        gates = product(data.flatten(0, -2), input_bias)
        gates = gates.reshape(*data.shape[:-1], gates.shape[-1])
        step = self._step(suffix, state_bias)
        if sizes is not None:
            return _packed(step, gates, state, sizes, reverse)
        if torch.compiler.is_exporting():
            return _scanned(step, gates, state, reverse)
        outputs = []
        for gates_now in (reversed if reverse else iter)(gates.unbind(0)):
            state = step(gates_now, state)
            outputs.append(state[0])
        return torch.stack(outputs[::-1] if reverse else outputs), state

    def _step(self, suffix: str, bias: Tensor | None) -> "Callable[[Tensor, State], State]":
        """One step of one way, its factors made ready for all of them."""
        product, step = self._product(f"weight_hh{suffix}"), self.cell.step
        if not self.proj_size:
            return lambda gates, state: step(gates, state, product, bias)
        narrowed = self._product(f"weight_hr{suffix}")

        def narrow(gates: Tensor, state: State) -> State:
            h, c = step(gates, state, product, bias)
            return narrowed(h, None), c

        return narrow

    def _factorised(self, name: str) -> Any:
        """The module that stands in for the weight of that name, None for a dense weight."""
        return self._modules.get(name)

    def _product(self, name: str) -> Product:
        """Of rows and the weight of that name, which is made ready once."""
        if (factorised := self._factorised(name)) is not None:
            matrices = factorised.prepared()
            return lambda x, add: factorised.project(x, matrices, add)
        turned = self.get_parameter(name).t()
        return lambda x, add: x @ turned if add is None else torch.addmm(add, x, turned)

    def _biases(self, suffix: str) -> tuple[Tensor | None, Tensor | None]:
        """What is added to the inputs' share of the gates, and at each step: of a GRU alone."""
        if not self.bias:
            return None, None
        biases = (self.get_parameter(f"bias_{side}{suffix}") for side in ("ih", "hh"))
        of_inputs, of_states = biases
        return (of_inputs, of_states) if self.mode == "GRU" else (of_inputs + of_states, None)

    def _fuses(self, suffix: str) -> bool:
        """Whether torch's kernel does the steps: with dense weights, but for the first products of
        the inputs. With projections of the states it would be the slow one."""
        entry = self._factorised(f"weight_ih{suffix}")
        dense = self._factorised(f"weight_hh{suffix}") is None and not self.proj_size
        return dense and (entry is None or entry.ends_dense)

    def _fused(
        self, suffix: str, data: Tensor, state: State, reverse: bool
    ) -> tuple[Tensor, State]:
        """All steps by torch's kernel; the data are in the order of the steps."""
        if (factorised := self._factorised(f"weight_ih{suffix}")) is None:
            entry = self.get_parameter(f"weight_ih{suffix}")
        else:
            matrices = factorised.prepared()
            rows = factorised.leading(data.flatten(0, -2), matrices)
            data, entry = rows.reshape(*data.shape[:-1], rows.shape[-1]), matrices[-1].t()
        names = ("weight_hh", "bias_ih", "bias_hh")
        others = (self._parameters.get(name + suffix) for name in names)
        weights = [entry, *(parameter for parameter in others if parameter is not None)]
        first = tuple(part.unsqueeze(0) for part in state)
        outputs, *last = self.cell.fused(
            data,
            first if len(first) > 1 else first[0],
            weights,
            has_biases=self.bias,
            num_layers=1,
            dropout=0.0,
            train=self.training,
            bidirectional=False,
            batch_first=False,
        )
        outputs = outputs.flip(0) if reverse else outputs
        return outputs, tuple(part.squeeze(0) for part in last)

    def _state(self, hx: Any, data: Tensor, batch: int, single: bool) -> State:
        """The first state, (layers * ways, N, width) each."""
        count = self.num_layers * (1 + self.bidirectional)
        widths = (self.width, self.hidden_size)[: self.cell.states]
        if hx is None:
            return tuple(data.new_zeros(count, batch, width) for width in widths)
        state = tuple(hx) if self.cell.states > 1 else (hx,)
        sizes = [(count, width) if single else (count, batch, width) for width in widths]
        if [tuple(part.shape) for part in state] != sizes:
            raise ValueError(
                f"states of {[tuple(part.shape) for part in state]} came; {sizes} were wanted"
            )
        return tuple(part.unsqueeze(1) for part in state) if single else state

    def _sizes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and sizes of weights and biases, in torch's order."""
        gates = self.cell.gates * self.hidden_size
        for layer, suffixes in enumerate(self.suffixes):
            for suffix in suffixes:
                inputs = self.width * len(suffixes) if layer else self.input_size
                yield f"weight_ih{suffix}", (gates, inputs)
                yield f"weight_hh{suffix}", (gates, self.width)
                if self.bias:
                    yield f"bias_ih{suffix}", (gates,)
                    yield f"bias_hh{suffix}", (gates,)
                if self.proj_size:
                    yield f"weight_hr{suffix}", (self.proj_size, self.hidden_size)

    def extra_repr(self) -> str:
        """The sizes."""
        return f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}"


def _packed(
    step: Callable[[Tensor, State], State],
    gates: Tensor,
    state: State,
    sizes: Sequence[int],
    reverse: bool,
) -> tuple[Tensor, State]:
    """Steps of falling numbers of rows: a sequence that has ended keeps its last state.

    From behind, each sequence begins with its first state where its last step is.
    """
    parts = torch.split(gates, list(sizes))
    first, ended, outputs = state, list[State](), []
    if reverse:
        state = tuple(part[:0] for part in first)
    for gates_now in reversed(parts) if reverse else parts:
        rows, before = len(gates_now), len(state[0])
        if rows > before:
            new = zip(state, (part[before:rows] for part in first), strict=True)
            state = tuple(torch.cat(pair) for pair in new)
        elif rows < before:
            ended.append(tuple(part[rows:] for part in state))
            state = tuple(part[:rows] for part in state)
        state = step(gates_now, state)
        outputs.append(state[0])
    ended.append(state)
    last = tuple(torch.cat(part) for part in zip(*ended[::-1], strict=True))
    return torch.cat(outputs[::-1] if reverse else outputs), last


def _scanned(
    step: Callable[[Tensor, State], State], gates: Tensor, state: State, reverse: bool
) -> tuple[Tensor, State]:
    """As one operator, whatever the number of steps."""
    from torch._higher_order_ops.scan import scan  # noqa: PLC0415 (private: an export alone needs it)

    def body(state: State, gates_now: Tensor) -> tuple[State, Tensor]:
        state = step(gates_now, state)
        return state, state[0].clone()

    last, outputs = scan(body, state, gates, dim=0, reverse=reverse)
    return outputs, tuple(last)


class LSTM(Recurrent):
    """In place of torch.nn.LSTM, with its arguments and results (Hochreiter and Schmidhuber,
    "Long Short-Term Memory", 1997)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)


class GRU(Recurrent):
    """In place of torch.nn.GRU, with its arguments and results (Cho et al., "Learning Phrase
    Representations Using RNN Encoder-Decoder", 2014)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("GRU", *args, **kwargs)


class RNN(Recurrent):
    """In place of torch.nn.RNN, with its arguments and results (Elman, "Finding Structure in
    Time", 1990)."""

    def __init__(self, *args: Any, nonlinearity: str = "tanh", **kwargs: Any) -> None:
        super().__init__(f"RNN_{nonlinearity.upper()}", *args, **kwargs)


def build(description: Mapping[str, Any], projection: Callable[..., nn.Module]) -> Recurrent:
    """The layer of a description, its values not yet set.

    Args:
        description: of a layer.
        projection: the class that a weight's description builds.
    """
    weights = {name: projection(**held) for name, held in description["weights"].items()}
    return Recurrent(description["mode"], **description["arguments"], weights=weights)
