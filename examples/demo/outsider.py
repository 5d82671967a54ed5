"""Accuracy of a result, measured by a stranger: a process that has torch, and nothing of ours.

    python -I outsider.py RESULT ARRAYS

Run on its own, never imported. RESULT is an unpacked result; ARRAYS is a safetensors file with
float32 `images` (N, C, H, W) as the network takes them and int64 `labels` (N,). Both ways to load
the result are tried, `load.py` and `model.pt2`; one JSON object on stdout tells how many images
each got right, and that none of our packages could be imported.
"""

import importlib.util
import json
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

OURS = ("benchmarks", "compress", "examples", "migrations", "search", "service", "workers")
BATCH = 64


class Blocker(MetaPathFinder):
    """Refuses to find our packages, although this interpreter has them installed."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 (the protocol's own)
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in OURS:
            raise ModuleNotFoundError(f"{fullname} is blocked here", name=fullname)
        return None


def blocked() -> list[str]:
    """Which of our packages cannot be imported."""
    found = []
    for name in OURS:
        try:
            __import__(name)
        except ModuleNotFoundError:
            found.append(name)
    return found


def main() -> None:
    """Print how many images the result gets right, loaded in both ways."""
    sys.meta_path.insert(0, Blocker())
    import torch  # noqa: PLC0415 (after the blocker is in place)

    result, arrays_path = map(Path, sys.argv[1:])
    spec = importlib.util.spec_from_file_location("load", result / "load.py")
    assert spec is not None
    assert spec.loader is not None
    load = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(load)

    arrays = load.read_safetensors(arrays_path)
    networks = {
        "load.py": load.load(result),
        "model.pt2": torch.export.load(result / "model.pt2").module(),
    }
    with torch.inference_mode():
        right = {
            name: sum(
                int((network(images).argmax(1) == labels).sum())
                for images, labels in zip(
                    arrays["images"].split(BATCH), arrays["labels"].split(BATCH), strict=True
                )
            )
            for name, network in networks.items()
        }
    print(json.dumps({"n": len(arrays["labels"]), "right": right, "blocked": blocked()}))


if __name__ == "__main__":
    main()
