"""Whether a recurrent network stays finite, and close to itself over many steps."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from compress.errors import UnstableError
from compress.recurrent.opened import Use

# A factorised layer may drift so many times as far as the dense one: they are never the same.
ALLOWED = 1.5
STEPS = 1000  # of the test: sequences may be longer than those that factors were fitted to
NUDGE = 1e-3  # of the inputs' root mean square
ROUND_OFFS = 8  # of the dtype: so far apart are outputs that are the same


@contextmanager
def finite(model: nn.Module) -> Iterator[None]:
    """Stop a network at the first layer that puts out NaN or infinite values.

    Raises:
        UnstableError: naming the layer, and the time step of a recurrent one.
    """

    def watch(name: str, layer: nn.Module) -> Any:
        def hook(_: nn.Module, __: Any, results: Any) -> None:
            output = results[0] if isinstance(results, tuple) else results
            values = output.data if isinstance(output, PackedSequence) else output
            if isinstance(values, Tensor) and not bool(values.isfinite().all()):
                where = _step(layer, output)
                raise UnstableError(
                    f"{name or 'the network'} puts out NaN or infinite values{where}"
                )

        return layer.register_forward_hook(hook)

    with ExitStack() as stack:
        for name, layer in model.named_modules():
            stack.enter_context(watch(name, layer))
        yield


def drift(layer: nn.Module, x: Tensor, nudge: Tensor) -> Tensor:
    """How far apart the outputs are at each step, (T,), if the first input is nudged.

    Relative to the norm of the outputs at the step where it is largest.

    Args:
        layer: recurrent, of torch or ours.
        x: (T, N, I), or (N, T, I) where batch_first.
        nudge: (N, I), added to the inputs of the first step.
    """
    batch_first = bool(layer.batch_first)
    steps = x.transpose(0, 1) if batch_first else x
    nudged = torch.cat([steps[:1] + nudge, steps[1:]])
    with torch.no_grad():
        outputs, others = (
            layer(each.transpose(0, 1) if batch_first else each)[0] for each in (steps, nudged)
        )
    distances, norms = (
        (each.transpose(0, 1) if batch_first else each).flatten(1).norm(dim=1)
        for each in (others - outputs, outputs)
    )
    return distances / norms.max().clamp_min(torch.finfo(norms.dtype).tiny)


def check_long_sequences(dense: nn.Module, model: nn.Module, uses: Mapping[str, Use]) -> None:
    """Refuse a network of which a recurrent layer drifts further than before, over many steps.

    Args:
        dense: the network as it came.
        model: the same with some of its recurrent layers factorised.
        uses: how `dense` uses those that it calls; the first sequence of each is gone through
            again and again.

    Raises:
        UnstableError: as `check_drift`; the note names the layer.
    """
    for name, use in uses.items():
        layer, factorised = dense.get_submodule(name), model.get_submodule(name)
        if type(layer) is not type(factorised):
            x = _repeated(use.inputs, batch_first=bool(layer.batch_first))
            draw = torch.Generator().manual_seed(0)
            nudge = torch.randn(1, x.shape[-1], generator=draw).to(x) * x.square().mean().sqrt()
            try:
                check_drift(layer, factorised, x, NUDGE * nudge)
            except UnstableError as error:
                error.add_note(f"of {name}")
                raise


def _repeated(inputs: Tensor, *, batch_first: bool) -> Tensor:
    """The first sequence again and again, a batch of one."""
    if inputs.ndim == 2:
        inputs = inputs.unsqueeze(0 if batch_first else 1)
    time = 1 if batch_first else 0
    first = inputs.narrow(1 - time, 0, 1)
    times = -(-STEPS // first.shape[time])
    return torch.cat([first] * times, time).narrow(time, 0, STEPS)


def check_drift(dense: nn.Module, factorised: nn.Module, x: Tensor, nudge: Tensor) -> None:
    """Refuse a factorised layer that the same nudge drives apart further than the dense one.

    At its furthest, and at the last step.

    Raises:
        UnstableError: it does, or its outputs are not finite.
    """
    limits, came = (drift(layer, x, nudge) for layer in (dense, factorised))
    for name, limit, found in (
        ("at its furthest", limits.max(), came.max()),
        ("after the last step", limits[-1], came[-1]),
    ):
        round_off = ROUND_OFFS * torch.finfo(found.dtype).eps
        if not float(found) <= ALLOWED * float(limit) + round_off:  # NaN too
            raise UnstableError(
                f"outputs drift {float(found):.3g} apart {name}, of the dense layer "
                f"{float(limit):.3g}; {ALLOWED} times that is allowed"
            )


def _step(layer: nn.Module, output: Any) -> str:
    """The first step of a recurrent layer whose outputs are not finite."""
    if isinstance(output, PackedSequence):
        first = int((~output.data.isfinite().all(-1)).nonzero()[0])
        step = int((output.batch_sizes.cumsum(0) <= first).sum())
    elif hasattr(layer, "batch_first") and output.ndim > 1:
        steps = output.transpose(0, 1) if layer.batch_first and output.ndim > 2 else output
        step = int((~steps.flatten(1).isfinite().all(1)).nonzero()[0])
    else:
        return ""
    return f", first at step {step}"
