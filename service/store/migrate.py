"""The tables of a database brought up to date by the packaged migrations."""

from collections.abc import Callable
from importlib.resources import as_file, files

from alembic import command
from alembic.config import Config

from service.store.session import make_engine


def upgrade(url: str) -> None:
    """Bring the tables to the newest revision; nothing happens where they are.

    Several processes may do so at once: the first works, the others wait and find it done.
    """
    _run(url, lambda config: command.upgrade(config, "head"))


def downgrade(url: str, revision: str) -> None:
    """Take the tables back to a revision; to "base" leaves none, and no data."""
    _run(url, lambda config: command.downgrade(config, revision))


def _run(url: str, task: Callable[[Config], None]) -> None:
    engine = make_engine(url)
    try:
        with as_file(files("migrations")) as scripts, engine.connect() as connection:
            config = Config(attributes={"connection": connection})
            config.set_main_option("script_location", str(scripts).replace("%", "%%"))
            task(config)
    finally:
        engine.dispose()
