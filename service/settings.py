"""Environment variables with the prefix RANKSEARCH_, read once and passed on."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where things are and what they may cost; one table in the README, checked by a test."""

    data_dir: Path = Path("ranksearch-data")
    """Holds the SQLite database, the blobs and the token, unless a URL says otherwise."""
    database_url: str = ""
    """Empty: SQLite in the data directory. Else e.g. postgresql+psycopg://user@host/name."""
    host: str = "127.0.0.1"
    port: int = 8000
    url: str = ""
    """Where clients find the service; empty: at the host and port."""
    token: str = ""
    """Bearer token; empty: made at the first start and kept in the data directory."""
    auth: bool = True
    max_upload_bytes: int = 4 << 30
    data_root: Path = Path("../shared/data")
    """Holds mnist/ and cifar10/ for the built-in datasets of those names."""
    poll_seconds: float = 0.5
    lease_seconds: float = 30.0
    max_attempts: int = 3
    threads: int = 1
    """Threads a job process computes with; timings take the objective's own number."""

    @property
    def database(self) -> str:
        """The SQLAlchemy URL."""
        return self.database_url or f"sqlite:///{self.data_dir / 'ranksearch.db'}"

    @property
    def blobs(self) -> Path:
        return self.data_dir / "blobs"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read every RANKSEARCH_ variable that is set.

        Raises:
            ValueError: a variable that is no setting, or a value of the wrong type.
        """
        known = {field.name: field.type for field in fields(cls)}
        values: dict[str, object] = {}
        for variable, text in environment.items():
            if not variable.startswith("RANKSEARCH_"):
                continue
            name = variable.removeprefix("RANKSEARCH_").lower()
            if name not in known:
                raise ValueError(f"{variable} came, one of {sorted(known)} was wanted")
            values[name] = _read(variable, text, known[name])
        return cls(**values)  # type: ignore[arg-type]


def _read(variable: str, text: str, kind: object) -> object:
    if kind is bool:
        if text.lower() not in ("0", "1", "false", "true"):
            raise ValueError(f"{variable}={text!r} came, true or false was wanted")
        return text.lower() in ("1", "true")
    assert isinstance(kind, type)
    try:
        return kind(text)
    except ValueError as error:
        raise ValueError(f"{variable}={text!r} came, {kind.__name__} was wanted") from error
