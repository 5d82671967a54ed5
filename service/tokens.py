"""The bearer token: given by the settings, or made once and kept in the data directory."""

import os
import secrets
from pathlib import Path

from service.settings import Settings


def token_of(settings: Settings) -> str:
    """The token of this installation; made, readable by its owner alone, if there is none yet.

    Raises:
        ValueError: the token's file is there and empty.
    """
    if settings.token:
        return settings.token
    path = settings.data_dir / "token"
    if not path.exists():
        _make(path)
    token = path.read_text().strip()
    if not token:
        raise ValueError(f"{path} is empty, a token was wanted: delete the file to get a new one")
    return token


def _make(path: Path) -> None:
    """Write a token under another name first: of two that start at once, both read the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}-{secrets.token_hex(8)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)
