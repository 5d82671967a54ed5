"""Where the service is and who asks: options, else the environment, else the data directory."""

import os
from collections.abc import Mapping
from typing import Annotated

import typer

from service.client import Client
from service.settings import Settings

# `ranksearch serve &` may have been started a moment ago.
PATIENCE_SECONDS = 10.0

Url = Annotated[
    str, typer.Option(help="Address of the service; default: RANKSEARCH_URL, else this machine.")
]
Token = Annotated[
    str,
    typer.Option(help="Bearer token; default: RANKSEARCH_TOKEN, else the data directory's token."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def read_settings(environment: Mapping[str, str]) -> Settings:
    """The settings of an environment.

    Raises:
        BadParameter: a variable that is none, or has no fitting value.
    """
    try:
        return Settings.from_environment(environment)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def connect(url: str, token: str) -> Client:
    """A client of a service that answers.

    Raises:
        UnreachableError: it does not.
    """
    settings = read_settings(os.environ)
    address = url or settings.url or f"http://{settings.host}:{settings.port}"
    with Client(address) as stranger:
        stranger.wait_until_up(PATIENCE_SECONDS)
    # Read after the first answer: a service that starts for the first time makes its token then.
    return Client(address, token or settings.token or _kept(settings))


def _kept(settings: Settings) -> str | None:
    """The token that a service on this machine keeps in its data directory."""
    path = settings.data_dir / "token"
    return path.read_text().strip() if path.exists() else None
