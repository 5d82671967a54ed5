"""What a job is about: its rows read, its network built, its data in memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy.orm import Session
from torch import nn

from compress.architectures import describe, from_weights, infer_arguments
from compress.catalog import PROGRAM
from compress.errors import CompressError
from compress.program.child import try_in_child
from compress.program.read import read_program
from compress.program.steps import document_of
from search.config import SearchConfig
from search.data.arrays import Arrays
from search.data.builtin import builtin
from search.data.declaration import Declaration
from search.data.files import read_arrays
from search.errors import DataError
from service.store import datasets, jobs, models
from service.store.blobs import Blobs
from service.store.tables import DatasetRow, JobRow, ModelRow
from workers.failures import JobError, described

_request = TypeAdapter(SearchConfig)


@dataclass(frozen=True, slots=True)
class Rows:
    """A job and what it refers to."""

    job: JobRow
    model: ModelRow
    dataset: DatasetRow


@dataclass(frozen=True, slots=True)
class Order:
    """The same as objects that can be computed with."""

    config: SearchConfig
    model: nn.Module
    architecture: dict[str, Any]
    arrays: Arrays


def read_rows(session: Session, job_id: str) -> Rows:
    """The rows of a job."""
    job = jobs.get(session, job_id)
    return Rows(job, models.get(session, job.model_id), datasets.get(session, job.dataset_id))


def load(rows: Rows, blobs: Blobs, data_root: Path) -> Order:
    """Build the network and read the data.

    Raises:
        JobError: the weights do not fit the architecture (bad_model), the data are not what was
            wanted (bad_dataset), or a file is not in this worker's storage (blob_missing).
        ValidationError: the stored request is no `SearchConfig`.
    """
    config = _request.validate_python(rows.job.request)
    model, architecture = _model(rows.model, blobs)
    return Order(config, model, architecture, _arrays(rows.dataset, blobs, data_root))


def _model(row: ModelRow, blobs: Blobs) -> tuple[nn.Module, dict[str, Any]]:
    """The network, and what `compress.load.build_dense` builds it from again."""
    path = _blob(blobs, row.sha256, f"the file of {row.id}")
    try:
        return _program(path) if row.architecture == PROGRAM else _named(row.architecture, path)
    except CompressError as error:
        raise JobError("bad_model", _said(error, path, row.name), retryable=False) from error


def _program(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    try_in_child(path)
    program = read_program(path)
    return program, dict(document_of(program))


def _named(name: str, path: Path) -> tuple[nn.Module, dict[str, Any]]:
    model = from_weights(name, path)
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    return model, describe(name, infer_arguments(name, shapes))


def _arrays(row: DatasetRow, blobs: Blobs, data_root: Path) -> Arrays:
    if row.builtin is not None:
        return builtin(row.builtin, data_root, Declaration.read(row.description))
    assert row.sha256 is not None
    path = _blob(blobs, row.sha256, f"the data of {row.id}")
    try:
        return read_arrays(path, Declaration.read(row.description))
    except DataError as error:
        raise JobError("bad_dataset", _said(error, path, row.name), retryable=False) from error


def _blob(blobs: Blobs, sha256: str, what: str) -> Path:
    path = blobs.path(sha256)
    if not path.exists():
        detail = f"{what} are not in the storage of this worker: give it the service's data folder"
        raise JobError("blob_missing", detail, retryable=True)
    return path


def _said(error: Exception, path: Path, name: str) -> str:
    """What an error says, with the file called as its owner calls it."""
    return described(error).replace(str(path), name).replace(path.name, name)
