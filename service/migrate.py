"""`python -m service.migrate`: the tables brought up to date before anything else starts."""

from service.settings import Settings
from service.store import migrate


def main() -> None:
    """Create or upgrade the tables of the database that the environment names."""
    settings = Settings.from_environment()
    if not settings.database_url:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    migrate.upgrade(settings.database)


if __name__ == "__main__":
    main()
