"""What was measured, on disk: whole or not at all."""

import json
from pathlib import Path
from typing import Any


def keep(file: Path, value: Any) -> None:
    """Write a value as JSON, beside its place first."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part")
    partial.write_text(json.dumps(value))
    partial.replace(file)
