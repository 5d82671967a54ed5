"""A small order in the store: a network of random weights, 30 images, one layer to factorise."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from sqlalchemy.orm import Session, sessionmaker
from torch import Tensor

from compress.architectures import build
from compress.checkpoint import write_safetensors
from search.config import Budget, SearchConfig, UniformConfig
from service.settings import Settings
from service.store import datasets, jobs, models
from service.store import lease as leases
from service.store.blobs import Blobs
from workers.journal import Journal

LAYERS = ("conv1", "conv2", "conv3", "conv4", "classify")
EASY = Budget(max_loss=100.0, unit="points", metric="agreement", confidence=None)


def order(*only: str, **changes: Any) -> SearchConfig:
    """Factorise `only` these layers, at most two candidates, whatever they lose."""
    exclude = tuple(name for name in LAYERS if name not in (only or ("conv2",)))
    settings = {"budget": EASY, "methods": ("svd",), "exclude": exclude}
    return SearchConfig(**(settings | {"search": UniformConfig(max_evaluations=2)} | changes))


@dataclass
class House:
    """A database and a folder of blobs, with a model and a dataset in them."""

    sessions: sessionmaker[Session]
    settings: Settings
    model_id: str
    dataset_id: str

    @property
    def blobs(self) -> Blobs:
        return Blobs(self.settings.blobs)

    def submit(self, config: SearchConfig, **changes: Any) -> str:
        """Queue a job."""
        request = TypeAdapter(SearchConfig).dump_python(config, mode="json")
        with self.sessions.begin() as session:
            own = {"model_id": self.model_id, "dataset_id": self.dataset_id}
            return jobs.submit(session, request=request, **(own | changes)).id

    def claim(self) -> Journal:
        """Take the next job, as a supervisor does."""
        with self.sessions.begin() as session:
            lease = leases.claim(session, "a test", 600.0)
        assert lease is not None
        return Journal(self.sessions, lease, patience_seconds=5.0)

    def carry_out(self) -> str:
        """Do the next job in this process; its id."""
        from workers.phases import carry_out  # noqa: PLC0415, tests replace parts of it

        journal = self.claim()
        carry_out(journal, self.settings, time.monotonic())
        return journal.lease.job_id


def furnish(sessions: sessionmaker[Session], folder: Path) -> House:
    """A network and images in the store."""
    url = sessions.kw["bind"].url.render_as_string(hide_password=False)
    settings = Settings(data_dir=folder, database_url=url)
    blobs = Blobs(settings.blobs)
    torch.manual_seed(0)
    write_safetensors(folder / "weights", build("digits_cnn").state_dict())
    np.savez(folder / "images", images=images().numpy())
    sha256, size_bytes = blobs.put_file(folder / "weights")
    arrays, arrays_bytes = blobs.put_file(folder / "images.npz")
    with sessions.begin() as session:
        model = models.add(
            session,
            name="random digits",
            architecture="digits_cnn",
            sha256=sha256,
            size_bytes=size_bytes,
            parameters=1,
        )
        dataset = datasets.add(
            session,
            name="noise",
            builtin=None,
            sha256=arrays,
            size_bytes=arrays_bytes,
            description={},
        )
    return House(sessions, settings, model.id, dataset.id)


def images() -> Tensor:
    """(30, 1, 32, 32) uint8."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (30, 1, 32, 32), dtype=torch.uint8, generator=generator)
