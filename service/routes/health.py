"""Is it alive, can it work, what can it do."""

import tempfile
from dataclasses import asdict
from importlib.metadata import version
from typing import get_args

from fastapi import APIRouter

from compress.catalog import ALL_METHODS, ARCHITECTURES
from search.config import Metric, Minimise, StrategyConfig, Unit
from search.data.declaration import Declaration
from service import safetensors_file
from service.array_intake import MAX_CLASSES, MIN_SAMPLES
from service.bodies import MAX_JSON_BYTES
from service.dataset_intake import BUILTINS, describe_builtin
from service.deps import BlobsDep, ReadDep, SettingsDep
from service.problems import KINDS, TYPE, ProblemError
from service.schemas import CapabilitiesOut
from service.store import jobs
from service.store.tables import JobState

open_router = APIRouter(tags=["health"])
router = APIRouter(tags=["health"])


@open_router.get("/healthz")
def read_health() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "alive"}


@open_router.get("/readyz")
def read_readiness(session: ReadDep, blobs: BlobsDep) -> dict[str, str]:
    """Whether the database has its tables and files can be written."""
    jobs.listed(session, limit=1)
    try:
        tempfile.TemporaryFile(dir=blobs.root / "tmp").close()
    except OSError as error:
        raise ProblemError("unavailable", f"no file can be written: {error.strerror}") from error
    return {"status": "ready"}


@router.get("/capabilities")
def read_capabilities(settings: SettingsDep) -> CapabilitiesOut:
    """Names and limits that requests may use."""
    return CapabilitiesOut(
        version=version("ranksearch"),
        architectures=sorted(ARCHITECTURES),
        methods=list(ALL_METHODS),
        objectives=list(get_args(Minimise)),
        strategies=[config().strategy for config in get_args(StrategyConfig)],
        metrics=list(get_args(Metric)),
        units=list(get_args(Unit)),
        datasets={name: describe_builtin(name, Declaration()) for name in BUILTINS},
        limits={
            "upload_bytes": settings.max_upload_bytes,
            "json_bytes": MAX_JSON_BYTES,
            "header_bytes": safetensors_file.MAX_HEADER_BYTES,
            "tensors": safetensors_file.MAX_TENSORS,
            "least_samples": MIN_SAMPLES,
            "classes": MAX_CLASSES,
        },
        states=[state.value for state in JobState],
        problems={code: {"type": TYPE + code, **asdict(kind)} for code, kind in KINDS.items()},
    )
