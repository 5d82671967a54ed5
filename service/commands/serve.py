"""`ranksearch serve`: its options."""

import os
from typing import Annotated

import typer

from service.commands.connection import Json, read_settings
from service.commands.exits import Exit


def serve(
    *,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "",
    port: Annotated[int | None, typer.Option(help="Port to listen at; 0: any free one.")] = None,
    data_dir: Annotated[str, typer.Option(help="Folder of database, files and token.")] = "",
    worker: Annotated[bool, typer.Option(help="Whether to run a worker as well.")] = True,
    as_json: Json = False,
) -> None:
    """Start the service: the API and one worker."""
    from service.serving import StartError, run  # noqa: PLC0415 (slow to import, and for this command alone)

    given = {"HOST": host, "PORT": "" if port is None else str(port), "DATA_DIR": data_dir}
    environment = os.environ | {f"RANKSEARCH_{name}": text for name, text in given.items() if text}
    try:
        run(read_settings(environment), environment, has_worker=worker, as_json=as_json)
    except StartError as error:
        typer.echo(error, err=True)
        raise typer.Exit(Exit.FAILED) from error
