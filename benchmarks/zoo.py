"""Every classification network of torchvision, factorised: `python -m benchmarks.zoo`.

Random weights in float64, and the least image that the network takes, or nearly. At full rank the
outputs must not change; at half rank the network runs, learns, keeps its outputs in channels_last
and under torch.compile (backend aot_eager: graphs are captured, no machine code is made), and has
the parameters and multiply-adds that the closed forms say.
"""

import argparse
import copy
import math
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.record import RESULTS, Record, Target
from compress.architectures import build
from compress.calibration import Trace, trace
from compress.catalog import TORCHVISION
from compress.layers import inspect
from compress.methods.registry import METHODS
from compress.plan import Choice, Plan
from compress.shape import stage_macs, stage_parameters
from compress.surgery import factorize_, is_factorized

EXACT = ("svd", "spatial_svd", "tucker2")  # methods that are the dense layer at full rank
# Parameters of a layer that is factorised: wider ones would take seconds each. Where all layers are
# wider, the narrowest is.
WIDEST = 20_000
ROUND_OFF = 1e-8  # difference allowed, relative to the largest output
SIDE = 32  # of the image
SIDES = {
    "alexnet": 64,
    "inception_v3": 75,
    "maxvit_t": 224,
    "vit_b_16": 64,
    "vit_b_32": 64,
    "vit_h_14": 56,
    "vit_l_16": 64,
    "vit_l_32": 64,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What became of one network."""

    network: str
    side: int
    parameters: int
    layers: int
    """With parameters of their own."""
    refused: int
    """Layers that no method may touch, each with a reason."""
    unaccounted: int
    """Parameters of no layer in the account."""
    factorised: int
    full_rank_difference: float
    """Of the outputs, relative to the largest, as are the two below."""
    channels_last_difference: float
    compile_difference: float | None
    """None: not compiled."""
    parameters_as_said: bool
    macs_as_said: bool
    learns: bool
    """Each weight of each factorised layer has a gradient, finite and not zero."""

    @property
    def fault(self) -> str | None:
        """What is wrong, None if nothing is."""
        differences = {
            "the outputs differ at full rank": self.full_rank_difference,
            "the outputs differ in channels_last": self.channels_last_difference,
            "the outputs differ under torch.compile": self.compile_difference or 0.0,
        }
        faults = [said for said, difference in differences.items() if not difference <= ROUND_OFF]
        checks = {
            "parameters are in no account": self.unaccounted == 0,
            "nothing was factorised": self.factorised > 0,
            "other parameters than the closed form says": self.parameters_as_said,
            "other MACs than the closed form says": self.macs_as_said,
            "a weight without a gradient": self.learns,
        }
        faults += [said for said, holds in checks.items() if not holds]
        return "; ".join(faults) or None


def main() -> None:
    """Try every network and write the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo")
    parser.add_argument("networks", nargs="*", default=sorted(TORCHVISION))
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the record")
    arguments = parser.parse_args()
    started_at, begun = datetime.now(UTC), time.monotonic()
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:
        rows = list(pool.map(_row, arguments.networks))
    record = Record(
        command="python -m benchmarks.zoo",
        threads=1,
        n=1,
        started_at=started_at,
        seconds=time.monotonic() - begun,
        rows=rows,
        targets=[
            Target("networks", "==", len(TORCHVISION), len(rows)),
            Target("networks with a fault", "<=", 0, sum(row["fault"] is not None for row in rows)),
        ],
    )
    print(f"written: {record.write('zoo', arguments.results)}")


def examine(name: str, *, compiled: bool) -> Finding:
    """Factorise one network at full and at half rank, and compare.

    Args:
        name: of torchvision's.
        compiled: whether to try torch.compile too.
    """
    torch.manual_seed(0)
    side = SIDES.get(name, SIDE)
    network = build(name, {"image_size": side} if name.startswith("vit_") else None).double()
    network.requires_grad_(False)  # but for factors: the rest would double the memory
    for parameter in network.parameters():
        if not parameter.any():  # as the heads of vision transformers: outputs would be zeros
            parameter.normal_(std=0.1)
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    traces = trace(network, x[:1])
    reports = inspect(network)
    named = {p for report in reports for p in network.get_submodule(report.name).parameters()}
    unaccounted = sum(p.numel() for p in network.parameters() if p not in named)
    with torch.no_grad():
        answer = network(x)
        full = copy.deepcopy(network)
        factorize_(full, plan_of(network, traces, 1.0))
        full_rank = difference(full(x), answer)
    del full
    plan = plan_of(network, traces, 0.5)
    saved_parameters, saved_macs = _savings(network, traces, plan)
    parameters, macs = _parameters(network), _macs(network, x[:1])
    factorize_(network, plan)
    as_said = parameters - _parameters(network) == saved_parameters
    macs_as_said = macs - _macs(network, x[:1]) == saved_macs
    learns = _learns(network, x)
    with torch.no_grad():
        answer = network(x)
        by_compile = None
        if compiled:
            by_compile = difference(torch.compile(network, backend="aot_eager")(x), answer)
            torch._dynamo.reset()
        network.to(memory_format=torch.channels_last)
        by_layout = difference(network(x.contiguous(memory_format=torch.channels_last)), answer)
    return Finding(
        network=name,
        side=side,
        parameters=parameters,
        layers=len(reports),
        refused=sum(report.reason is not None for report in reports),
        unaccounted=unaccounted,
        factorised=len(plan),
        full_rank_difference=full_rank,
        channels_last_difference=by_layout,
        compile_difference=by_compile,
        parameters_as_said=as_said,
        macs_as_said=macs_as_said,
        learns=learns,
    )


def plan_of(network: nn.Module, traces: Mapping[str, Trace], share: float) -> Plan:
    """Every narrower layer at `share` of its full rank, the methods that apply taking turns.

    Layers that are never called, as those whose weight their parent reads, are none to factorise.
    """
    choices, turns = {}, cycle(EXACT)
    open_ = {
        report.name: (report.shape, report.refusals)
        for report in inspect(network)
        if report.reason is None and report.shape is not None and report.name in traces
    }
    widest = max(WIDEST, min(shape.parameters for shape, _ in open_.values()))
    for name, (shape, refusals) in open_.items():
        if shape.parameters > widest:
            continue
        method = next(m for m in turns if m == "svd" or m not in refusals)
        if method not in refusals:
            limits = METHODS[method].limits(shape)
            choices[name] = Choice(method, tuple(max(1, int(share * r)) for r in limits))
    return Plan(choices)


def _savings(network: nn.Module, traces: Mapping[str, Trace], plan: Plan) -> tuple[int, int]:
    """Parameters and MACs that the plan saves, in closed form."""
    shapes = {report.name: report.shape for report in inspect(network)}
    parameters = macs = 0
    for name, choice in plan:
        shape, use = shapes[name], traces[name]
        assert shape is not None
        stages = METHODS[choice.method].stages(shape, choice.ranks)
        parameters += shape.parameters - stage_parameters(stages)
        macs += use.calls * (shape.macs(use.input_size) - stage_macs(stages, use.input_size))
    return parameters, macs


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _macs(network: nn.Module, x: Tensor) -> int:
    """Counted by torch while the network runs."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(x)
    return int(counter.get_total_flops()) // 2


def _learns(network: nn.Module, x: Tensor) -> bool:
    layers = [layer.requires_grad_() for layer in network.modules() if is_factorized(layer)]
    network(x).square().sum().backward()
    gradients = [weight.grad for layer in layers for weight in layer.parameters()]
    network.zero_grad()
    return all(g is not None and bool(g.isfinite().all()) and bool(g.any()) for g in gradients)


def difference(found: Tensor, wanted: Tensor) -> float:
    """The largest, relative to the largest that was wanted."""
    return float((found - wanted).abs().max() / wanted.abs().max())


def _row(name: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    begun = time.process_time()
    finding = examine(name, compiled=True)
    row = asdict(finding) | {"fault": finding.fault, "seconds": time.process_time() - begun}
    for key, value in row.items():
        if isinstance(value, float) and not math.isfinite(value):
            row[key] = str(value)  # which JSON has no number for
    print(*(f"{key}={value}" for key, value in row.items()), flush=True)
    return row


if __name__ == "__main__":
    main()
