"""What routes ask for."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session, sessionmaker

from service.settings import Settings
from service.store.blobs import Blobs
from service.store.session import reading


def open_session(request: Request) -> Iterator[Session]:
    """One request, one transaction that may write."""
    sessions: sessionmaker[Session] = request.app.state.sessions
    with sessions.begin() as session:
        yield session


def open_reading(request: Request) -> Iterator[Session]:
    """One request, one state of the database; waits for no writer."""
    with reading(request.app.state.sessions) as session:
        yield session


def open_blobs(request: Request) -> Blobs:
    """Where files are kept."""
    blobs: Blobs = request.app.state.blobs
    return blobs


def read_settings(request: Request) -> Settings:
    """What the service was started with."""
    settings: Settings = request.app.state.settings
    return settings


# Function scope: the commit comes before the response, so that a 201 is never taken back.
WriteDep = Annotated[Session, Depends(open_session, scope="function")]
ReadDep = Annotated[Session, Depends(open_reading, scope="function")]
BlobsDep = Annotated[Blobs, Depends(open_blobs)]
SettingsDep = Annotated[Settings, Depends(read_settings)]
