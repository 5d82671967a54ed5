"""Choice tables of earlier jobs, one file each, by the digest of all that they depend on."""

import os
import tempfile
from pathlib import Path

from search.table import ChoiceTable


class TableCache:
    """A folder of tables; whoever loses one analyses again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> ChoiceTable | None:
        """The table under `key`, if there is one that can be read."""
        try:
            return ChoiceTable.from_json(self._path(key).read_text("utf-8"))
        except (OSError, ValueError, LookupError, TypeError):  # absent, or of another version
            return None

    def put(self, key: str, table: ChoiceTable) -> None:
        """Keep `table`; nobody ever reads a half-written one.

        Raises:
            OSError: there is no space; nothing is left of the file.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=self._folder, encoding="utf-8") as file:
            file.write(table.to_json())
            file.flush()
            os.link(file.name, self._path(key).with_suffix(f".{os.getpid()}"))
        os.replace(self._path(key).with_suffix(f".{os.getpid()}"), self._path(key))

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"
