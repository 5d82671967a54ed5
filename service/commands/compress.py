"""`ranksearch compress`: upload, submit, follow, download; a network of one's own stays here."""

import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

import typer

from compress.catalog import DEFAULT_METHODS, PROGRAM_SUFFIXES
from search.config import (
    Augmentation,
    ConfigError,
    EstimationConfig,
    GeneticConfig,
    Method,
    Metric,
    Minimise,
    Recovery,
    RecoveryMethod,
    Runtime,
    SearchConfig,
    StrategyConfig,
    UniformConfig,
    VbmfConfig,
    WeightModes,
)
from search.data.declaration import Declaration
from search.data.transforms import as_document
from search.errors import DataError
from service.client import Client
from service.commands.budget import read_budget
from service.commands.connection import Json, Token, Url, connect, read_settings
from service.commands.jobs import finish
from service.commands.local import run_module
from service.commands.objective import read_objective
from service.schemas import BuiltinOrder, DatasetOut, JobOrder

StrategyName = Literal["estimation", "genetic", "uniform", "vbmf"]
STRATEGIES: Final[dict[StrategyName, type[StrategyConfig]]] = {
    "estimation": EstimationConfig,
    "genetic": GeneticConfig,
    "uniform": UniformConfig,
    "vbmf": VbmfConfig,
}
BUILTINS: Final = get_args(BuiltinOrder.model_fields["builtin"].annotation)


def compress(
    model: Annotated[
        str,
        typer.Argument(
            help="Architecture: of torchvision, timm/NAME, or an example; or a program of "
            "torch.export, a .pt2 file, or a .onnx file. PACKAGE:FACTORY is your own network: it "
            "is compressed on this machine, without the service."
        ),
    ],
    *,
    data: Annotated[
        str,
        typer.Option(
            help="A file of arrays (npz, npy, safetensors) or of pictures (zip, tar), or one of "
            f"{', '.join(BUILTINS)}; for your own network PACKAGE:FUNCTION too."
        ),
    ],
    max_loss: Annotated[str, typer.Option(help="What may be lost: 0.5pp or 1%rel.")],
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Its trained weights: safetensors, or a state dict of torch.save.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    inputs: Annotated[str, typer.Option(help="Arrays that the network takes.")] = "images",
    transforms: Annotated[
        str, typer.Option(help='Of images: [{"resize": 256}, {"center_crop": 224}].')
    ] = "[]",
    mean: Annotated[
        str | None, typer.Option(help="Of images, a number a channel: 0.5,0.5.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    metric: Annotated[Metric, typer.Option(help="What is lost.")] = "top1",
    confidence: Annotated[str, typer.Option(help="Of the promise; none: point estimate.")] = "0.95",
    strategy: Annotated[StrategyName, typer.Option(help="How ranks are searched.")] = "estimation",
    minimise: Annotated[
        Minimise, typer.Option(help="What is made small; latency is measured in any case.")
    ] = "latency",
    weight: Annotated[
        list[str] | None,
        typer.Option(help="Of --minimise weighted: latency=0.7; once for each part."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="To be tried, in place of the default: svd; once for each."),
    ] = None,
    modes: Annotated[
        list[str] | None,
        typer.Option(
            help="How a weight of a recurrent layer is folded, inputs:outputs; once for each: "
            "lstm.weight_hh_l0=16x32:32x64."
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="Batch size that is timed.", min=1)] = 1,
    threads: Annotated[int, typer.Option(help="Threads that are timed with.", min=1)] = 1,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Device that is timed on.")
    ] = "auto",
    runtime: Annotated[
        Runtime, typer.Option(help="Runtime that is timed, for which the speed-up then holds.")
    ] = "eager",
    fold_norms: Annotated[
        bool,
        typer.Option(
            "--fold-norms",
            help="Put batch norms into the layers before them, in the dense network too: faster, "
            "but the result has none to be trained with.",
        ),
    ] = False,
    widths: Annotated[
        bool,
        typer.Option(
            "--widths",
            help="Take channels out of layers too, beside choosing ranks; by estimation alone.",
        ),
    ] = False,
    recover: Annotated[
        RecoveryMethod,
        typer.Option(
            help="Training of each candidate before it is judged: distil, on the dense network's "
            "answers; finetune, on labels too."
        ),
    ] = "none",
    recover_seconds: Annotated[
        float, typer.Option(help="That the training of a candidate may take.", min=1)
    ] = 30.0,
    augment: Annotated[
        str,
        typer.Option(
            help="How the images that a candidate learns from are varied: flip, shift=PIXELS, or "
            "both with a comma between."
        ),
    ] = "",
    name: Annotated[str | None, typer.Option(help="A name for the job.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the result; default: the job's id.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Whether to follow the job to its end.")] = True,
    as_json: Json = False,
    url: Url = "",
    token: Token = "",
) -> None:
    """Make a trained network faster within a loss budget."""
    budget = read_budget(max_loss, metric, confidence)
    objective = read_objective(
        minimise,
        weight or (),
        device=device,
        runtime=runtime,
        batch=batch,
        threads=threads,
        fold_norms=fold_norms,
    )
    tried, folded = _methods(method or ()), _modes(modes or ())
    declaration = _declaration(inputs, transforms, mean, std)
    recovery = _recovery(recover, recover_seconds, augment)
    search = STRATEGIES[strategy]()
    try:  # before anything is sent
        config = SearchConfig(
            budget=budget,
            objective=objective,
            methods=tried,
            modes=folded,
            search=search,
            recovery=recovery,
            widths=widths,
        )
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error
    if ":" in model:
        options: dict[str, object] = {
            "--weights": weights,
            "--data": data,
            "--inputs": inputs,
            "--transforms": transforms,
            "--mean": mean,
            "--std": std,
            "--max-loss": budget.max_loss,
            "--unit": budget.unit,
            "--metric": metric,
            "--confidence": confidence,
            "--strategy": strategy,
            "--minimise": minimise,
            "--device": device,
            "--runtime": runtime,
            "--batch": batch,
            "--threads": threads,
            "--recover": recover,
            "--recover-seconds": recover_seconds,
            "--augment": augment,
            "--data-root": read_settings(os.environ).data_root,
            "--out": out,
        }
        # One word each, so that a value may begin with a dash.
        given = [f"{option}={value}" for option, value in options.items() if value is not None]
        given += [f"--weight={part}" for part in weight or ()]
        given += [f"--method={each}" for each in method or ()]
        given += [f"--modes={each}" for each in modes or ()]
        given += ["--fold-norms"] if fold_norms else []
        given += ["--widths"] if widths else []
        run_module("search.local", model, *given, as_json=as_json)
    file, architecture = _network(model, weights)
    with connect(url, token) as client:
        uploaded = client.upload_model(file, architecture=architecture)
        order = JobOrder(
            model=uploaded.id,
            dataset=_dataset(client, data, declaration).id,
            name=name,
            **{each.name: getattr(config, each.name) for each in fields(config)},
        )
        job = client.submit(order)
        if wait:
            finish(client, job.id, out or Path(job.id), as_json=as_json)
        typer.echo(job.model_dump_json() if as_json else job.id)


def _network(model: str, weights: Path | None) -> tuple[Path, str | None]:
    """The file to be sent, and the architecture that it belongs to; a program has none."""
    if Path(model).suffix in PROGRAM_SUFFIXES:
        if weights is not None:
            raise typer.BadParameter(f"--weights came with {model}, which holds its own")
        if not Path(model).is_file():
            raise typer.BadParameter(f"{model} is not there")
        return Path(model), None
    if weights is None:
        raise typer.BadParameter(f"{model} came without --weights, its trained weights")
    return weights, model


def _methods(names: Sequence[str]) -> tuple[Method, ...]:
    known: dict[str, Method] = {name: name for name in get_args(Method)}
    if unknown := [name for name in names if name not in known]:
        raise typer.BadParameter(
            f"--method {unknown[0]} came, one of {', '.join(known)} was wanted"
        )
    return tuple(known[name] for name in names) or DEFAULT_METHODS


def _modes(texts: Sequence[str]) -> tuple[WeightModes, ...]:
    try:
        return tuple(map(WeightModes.parsed, texts))
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error


def _recovery(method: RecoveryMethod, max_seconds: float, augment: str) -> Recovery:
    try:
        augmentation = Augmentation.parsed(augment)
        return Recovery(method=method, max_seconds=max_seconds, augment=augmentation)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error


def _declaration(inputs: str, transforms: str, mean: str | None, std: str | None) -> Declaration:
    try:
        return Declaration.parsed(inputs=inputs, transforms=transforms, mean=mean, std=std)
    except DataError as error:
        raise typer.BadParameter(str(error)) from error


def _dataset(client: Client, data: str, declaration: Declaration) -> DatasetOut:
    """The file of that name if there is one, else the set that the service knows by it."""
    transforms = as_document(declaration.transforms)
    mean, std = declaration.mean, declaration.std
    if Path(data).is_file():
        return client.upload_dataset(
            Path(data), inputs=declaration.inputs, transforms=transforms, mean=mean, std=std
        )
    if data in BUILTINS:
        return client.builtin_dataset(data, transforms=transforms, mean=mean, std=std)
    raise typer.BadParameter(
        f"--data {data} came, which is no file and none of {', '.join(BUILTINS)}"
    )
