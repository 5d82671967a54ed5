"""A network of your own made faster on this machine, without the service.

    python -m search.local PACKAGE:FACTORY --data DATA --max-loss 0.5 --unit points --out FOLDER

FACTORY is a function of PACKAGE that returns the trained network; DATA a file, one of the built-in
sets, or PACKAGE:FUNCTION that returns `search.data.arrays.Arrays`. This runs your code: the service
never does, and builds networks from its own list of names alone.

Exit code 0 for budget_met, 3 for budget_missed, 4 for no_gain; 1 where it cannot be done and 2 for
wrong usage, with one sentence.
"""

import argparse
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Final, TypeVar, get_args

from torch import nn

from compress.artifact import PROGRAMS
from compress.catalog import DEFAULT_METHODS
from compress.errors import CompressError, ExportError
from compress.state_dict import read_state_dict
from search.config import (
    Augmentation,
    Budget,
    ConfigError,
    Method,
    Metric,
    Minimise,
    Objective,
    Recovery,
    RecoveryMethod,
    Runtime,
    SearchConfig,
    StrategyConfig,
    Unit,
    WeightModes,
    Weights,
)
from search.data.arrays import Arrays
from search.data.builtin import BUILTIN, builtin
from search.data.declaration import Declaration
from search.data.files import read_arrays
from search.errors import DataError, SearchError
from search.run import Result, search_ranks

EXITS: Final = {"budget_met": 0, "budget_missed": 3, "no_gain": 4}
REFERENCE: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
STRATEGIES: Final = {config().strategy: config for config in get_args(StrategyConfig)}

Made = TypeVar("Made")


class UsageError(ValueError):
    """The command line does not lead to a network or to data."""


def made_by(reference: str, kind: type[Made]) -> Made:
    """What the function PACKAGE:FUNCTION returns.

    Raises:
        UsageError: there is no such function, or it returns something else.
    """
    if not REFERENCE.fullmatch(reference):
        raise UsageError(f"{reference!r} came, PACKAGE:FUNCTION was wanted")
    module, _, name = reference.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{reference}: {error}") from error
    made = function()
    if not isinstance(made, kind):
        raise UsageError(f"{reference} returns {type(made).__name__}, {kind.__name__} was wanted")
    return made


def read_model(reference: str, weights: Path | None) -> nn.Module:
    """The network of a factory, with the weights of a file if one is given.

    Raises:
        UsageError: the factory gives no network, or the weights are those of another.
        WeightsError: the file is malformed.
    """
    model = made_by(reference, nn.Module)
    if weights is not None:
        try:
            model.load_state_dict(read_state_dict(weights))
        except RuntimeError as error:
            raise UsageError(f"{weights}: {error}") from error
    return model.eval()


def read_data(reference: str, declaration: Declaration, data_root: Path) -> Arrays:
    """Data by a file's name, a built-in set's, or that of a function.

    Raises:
        UsageError: it is none of these.
        DataError: the data are not what was declared.
    """
    if Path(reference).is_file():
        return read_arrays(Path(reference), declaration)
    if reference in BUILTIN:
        return builtin(reference, data_root, declaration)
    if REFERENCE.fullmatch(reference):
        return made_by(reference, Arrays)
    raise UsageError(
        f"--data {reference} came, which is no file, none of {', '.join(BUILTIN)} and no "
        "PACKAGE:FUNCTION"
    )


def save(result: Result, folder: Path) -> dict[str, str]:
    """Write the files of a result; program -> why it is not among them, where one is not."""
    faults: dict[str, str] = {}
    while True:
        try:
            result.save(folder, programs=[name for name in PROGRAMS if name not in faults])
        except ExportError as error:
            faults[error.file] = str(error)
        else:
            return faults


def main() -> int:
    """Compress what the command line names."""
    arguments = _parser().parse_args()
    try:
        declaration = Declaration.parsed(
            inputs=arguments.inputs,
            transforms=arguments.transforms,
            mean=arguments.mean,
            std=arguments.std,
        )
        budget = Budget(
            max_loss=arguments.max_loss,
            unit=arguments.unit,
            metric=arguments.metric,
            confidence=None if arguments.confidence == "none" else float(arguments.confidence),
        )
        objective = Objective(
            minimise=arguments.minimise,
            weights=Weights.parsed(arguments.weight) if arguments.weight else None,
            device=arguments.device,
            runtime=arguments.runtime,
            batch=arguments.batch,
            threads=arguments.threads,
            fold_norms=arguments.fold_norms,
        )
        config = SearchConfig(
            budget=budget,
            objective=objective,
            methods=tuple(arguments.method or DEFAULT_METHODS),
            modes=tuple(map(WeightModes.parsed, arguments.modes or ())),
            search=STRATEGIES[arguments.strategy](),
            widths=arguments.widths,
            recovery=Recovery(
                method=arguments.recover,
                max_seconds=arguments.recover_seconds,
                augment=Augmentation.parsed(arguments.augment),
            ),
        )
        model = read_model(arguments.model, arguments.weights)
        data = read_data(arguments.data, declaration, arguments.data_root)
        result = search_ranks(model, data, config, report=_report)
    except (UsageError, ConfigError, DataError) as error:
        print(error, file=sys.stderr)
        return 2
    except (CompressError, SearchError) as error:
        print("; ".join([str(error), *getattr(error, "__notes__", [])]), file=sys.stderr)
        return 1
    for program, fault in save(result, arguments.out).items():
        print(f"without {program}: {fault}", file=sys.stderr)
    verdict = result.confirmation.verdict
    summary = {"verdict": verdict, "sentence": result.confirmation.sentence}
    told = json.dumps(summary | {"folder": str(arguments.out)}) if arguments.json else None
    print(told or f"{verdict}: {result.confirmation.sentence}\n{arguments.out}")
    return EXITS[verdict]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ranksearch compress", description="Compress a network of your own on this machine."
    )
    parser.add_argument("model", metavar="PACKAGE:FACTORY")
    parser.add_argument("--weights", type=Path, help="a file for what the factory returns")
    parser.add_argument("--data", required=True, help="a file, a built-in set, PACKAGE:FUNCTION")
    parser.add_argument("--inputs", default="images", help="arrays that the network takes")
    parser.add_argument("--transforms", default="[]", help="of images, as JSON")
    parser.add_argument("--mean", help="of images, a number a channel, with commas between")
    parser.add_argument("--std", help="likewise")
    parser.add_argument("--max-loss", type=float, required=True)
    parser.add_argument("--unit", choices=get_args(Unit), required=True)
    parser.add_argument("--metric", choices=get_args(Metric), default="top1")
    parser.add_argument("--confidence", default="0.95", help="or none, for the point estimate")
    parser.add_argument("--strategy", choices=sorted(STRATEGIES), default="estimation")
    parser.add_argument("--minimise", choices=get_args(Minimise), default="latency")
    parser.add_argument("--weight", action="append", help="of weighted, latency=0.7 say")
    parser.add_argument("--method", action="append", choices=get_args(Method), help="to be tried")
    parser.add_argument("--modes", action="append", help="lstm.weight_hh_l0=16x32:32x64 say")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--runtime", choices=get_args(Runtime), default="eager")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--widths", action="store_true", help="take channels out too")
    parser.add_argument("--fold-norms", action="store_true", help="in the dense network too")
    parser.add_argument("--recover", choices=get_args(RecoveryMethod), default="none")
    parser.add_argument("--recover-seconds", type=float, default=30.0, help="of a candidate")
    parser.add_argument("--augment", default="", help="of images to learn from: flip,shift=4")
    parser.add_argument("--data-root", type=Path, default=Path(), help="of the larger sets")
    parser.add_argument("--out", type=Path, default=Path("result"))
    parser.add_argument("--json", action="store_true")
    return parser


def _report(fraction: float, sentence: str) -> None:
    print(f"{fraction:4.0%} {sentence}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
