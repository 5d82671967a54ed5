"""`ranksearch compress`: upload, submit, follow, download."""

from pathlib import Path
from typing import Annotated, Final, Literal, get_args

import typer

from search.config import (
    EstimationConfig,
    GeneticConfig,
    Metric,
    Objective,
    StrategyConfig,
    UniformConfig,
    VbmfConfig,
)
from service.client import Client
from service.commands.budget import read_budget
from service.commands.connection import Json, Token, Url, connect
from service.commands.jobs import finish
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
    model: Annotated[str, typer.Argument(help="Architecture: of torchvision, or an example.")],
    *,
    weights: Annotated[
        Path, typer.Option(help="Its trained weights: safetensors.", exists=True, dir_okay=False)
    ],
    data: Annotated[
        str, typer.Option(help=f"An .npz or .safetensors file, or one of {', '.join(BUILTINS)}.")
    ],
    max_loss: Annotated[str, typer.Option(help="What may be lost: 0.5pp or 1%rel.")],
    metric: Annotated[Metric, typer.Option(help="What is lost.")] = "top1",
    confidence: Annotated[str, typer.Option(help="Of the promise; none: point estimate.")] = "0.95",
    strategy: Annotated[StrategyName, typer.Option(help="How ranks are searched.")] = "estimation",
    batch: Annotated[int, typer.Option(help="Batch size that is timed.", min=1)] = 1,
    threads: Annotated[int, typer.Option(help="Threads that are timed with.", min=1)] = 1,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Device that is timed on.")
    ] = "auto",
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
    with connect(url, token) as client:
        uploaded = client.upload_model(weights, architecture=model)
        order = JobOrder(
            model=uploaded.id,
            dataset=_dataset(client, data).id,
            budget=budget,
            objective=Objective(device=device, batch=batch, threads=threads),
            search=STRATEGIES[strategy](),
            name=name,
        )
        job = client.submit(order)
        if wait:
            finish(client, job.id, out or Path(job.id), as_json=as_json)
        typer.echo(job.model_dump_json() if as_json else job.id)


def _dataset(client: Client, data: str) -> DatasetOut:
    """The file of that name if there is one, else the set that the service knows by it."""
    if Path(data).is_file():
        return client.upload_dataset(Path(data))
    if data in BUILTINS:
        return client.builtin_dataset(data)
    raise typer.BadParameter(
        f"--data {data} came, which is no file and none of {', '.join(BUILTINS)}"
    )
