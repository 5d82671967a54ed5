"""Which layers of a network can be factorised, by which methods, or why not.

    python -m search.inspection ARCHITECTURE [--weights FILE] [--json]
    python -m search.inspection FILE.pt2|FILE.onnx [--json]

With weights, they are checked against the architecture as a job would check them, and every
tensor that does not fit is named. A program is tried as a job would try it.
Exit code 0; 1 if the weights do not fit, or a program is refused; 2 for an architecture that is
unknown, or wrong usage.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from compress.architectures import build, from_weights
from compress.catalog import METHODS, PROGRAM_SUFFIXES, RECURRENT_METHODS
from compress.errors import ArchitectureError, ProgramError, WeightsError
from compress.layers import LayerReport, inspect
from compress.program.child import try_in_child
from compress.program.read import read_network
from compress.shape import ConvShape, LayerShape, WeightShape


def document(architecture: str, reports: Sequence[LayerReport], parameters: int) -> dict[str, Any]:
    """As JSON: of each layer the shape, the methods that apply, and why the others do not."""
    return {
        "architecture": architecture,
        "parameters": parameters,
        "layers": [
            {
                "name": report.name,
                "shape": report.shape and asdict(report.shape),
                "methods": _methods(report),
                "refusals": dict(report.refusals),
                "reason": report.reason,
            }
            for report in reports
        ],
    }


def text(reports: Sequence[LayerReport], parameters: int) -> Iterator[str]:
    """A line for each layer, the columns aligned."""
    rows = [("layer", "shape", "methods, or why none")]
    rows += [
        (report.name or "(itself)", _shape(report.shape), _verdict(report)) for report in reports
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for name, shape, verdict in rows:
        yield f"{name:{widths[0]}}  {shape:{widths[1]}}  {verdict}".rstrip()
    eligible = sum(bool(_methods(report)) for report in reports)
    yield f"{eligible} of {len(reports)} layers can be factorised; {parameters:,} parameters"


def _methods(report: LayerReport) -> list[str]:
    if report.shape is None or report.reason is not None:
        return []
    known = RECURRENT_METHODS if isinstance(report.shape, WeightShape) else METHODS
    return [method for method in known if method not in report.refusals]


def _verdict(report: LayerReport) -> str:
    if methods := _methods(report):
        return " ".join(methods)
    if report.reason is not None:
        return report.reason
    return "; ".join(sorted(set(report.refusals.values())))


def _shape(shape: LayerShape | None) -> str:
    if shape is None:
        return "-"
    if isinstance(shape, ConvShape):
        kernel = "x".join(map(str, shape.kernel_size))
        groups = f", {shape.groups} groups" if shape.groups > 1 else ""
        return f"{shape.type} {shape.in_channels} -> {shape.out_channels}, {kernel}{groups}"
    return f"{shape.type} {shape.in_features} -> {shape.out_features}"


def main() -> None:
    """Inspect the network named on the command line."""
    parser = argparse.ArgumentParser(
        prog="ranksearch inspect", description="Every layer: eligible methods, or why not."
    )
    parser.add_argument(
        "architecture", help="a network of torchvision, timm/NAME, or ours; or a .pt2 or .onnx file"
    )
    parser.add_argument("--weights", type=Path, help="the file of its weights, to be checked too")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    arguments = parser.parse_args()
    name, weights = arguments.architecture, arguments.weights
    is_program = Path(name).suffix in PROGRAM_SUFFIXES
    for path in (weights, Path(name) if is_program else None):
        if path is not None and not path.is_file():
            parser.error(f"{path} is not there")
    if is_program and weights is not None:
        parser.error(f"--weights came with {name}, which holds its own")
    try:
        if is_program:
            try_in_child(name)
            network: nn.Module = read_network(name)
        else:
            network = build(name) if weights is None else from_weights(name, weights)
    except ProgramError as error:
        sys.exit(f"{name} cannot be read: {error}")
    except ArchitectureError as error:
        parser.error(str(error))
    except WeightsError as error:
        every = "\n".join(error.differences) or str(error)
        sys.exit(f"{weights} does not fit {name}:\n{every}")
    reports = inspect(network)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if arguments.json:
        print(json.dumps(document(name, reports, parameters)))
    else:
        print("\n".join(text(reports, parameters)))


if __name__ == "__main__":
    main()
