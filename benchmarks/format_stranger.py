"""A result loaded by a stranger: a process that has torch and onnxruntime, and nothing of ours.

    python -I -B format_stranger.py RESULT ARRAYS

Run on its own, never imported. RESULT is the folder of a result; ARRAYS a safetensors file with
`input1` and `output1` of a batch of one, and the same of a batch of three. One JSON object on
stdout tells of each form how far its outputs differ, relative to the largest, and the CPU seconds
that loading it took, or why it failed.
"""

import importlib.util
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

OURS = ("benchmarks", "compress", "examples", "migrations", "search", "service", "workers")
BATCHES = (1, 3)


class Blocker(MetaPathFinder):
    """Refuses to find our packages, although this interpreter may have them installed."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 (the protocol's own)
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in OURS:
            raise ModuleNotFoundError(f"{fullname} is blocked here", name=fullname)
        return None


def module_at(path: Path) -> ModuleType:
    """The module of a file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def found(make: Callable[[], Callable[[Any], Any]], arrays: Mapping[str, Any]) -> dict[str, Any]:
    """What a form computes beside what was wanted, and the CPU seconds of loading it."""
    import torch  # noqa: PLC0415 (after the blocker is in place)

    begun = time.process_time()
    try:
        run = make()
        seconds = time.process_time() - begun
        errors = []
        with torch.inference_mode():
            for batch in BATCHES:
                wanted = arrays[f"output{batch}"]
                difference = (run(arrays[f"input{batch}"]) - wanted).abs().max()
                errors.append(float(difference / wanted.abs().max()))
    except Exception as error:  # of torch, of onnxruntime, of the file
        said = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
        return {"error": None, "seconds": None, "failure": said}
    return {"error": max(errors), "seconds": round(seconds, 3), "failure": None}


def main() -> None:
    """Print what each form of the result computes."""
    sys.meta_path.insert(0, Blocker())
    warnings.simplefilter("ignore")
    import torch  # noqa: PLC0415 (after the blocker is in place)

    torch.set_num_threads(1)
    result, arrays_path = map(Path, sys.argv[1:])
    loader = module_at(result / "load.py")

    def graph() -> Callable[[Any], Any]:
        import onnxruntime  # noqa: PLC0415

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            str(result / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        return lambda x: torch.from_numpy(session.run(None, {"input": x.numpy()})[0])

    forms: dict[str, Callable[[], Callable[[Any], Any]]] = {
        "model.safetensors": lambda: loader.load(result),
        "model.pt2": lambda: torch.export.load(result / "model.pt2").module(),
        "model.onnx": graph,
    }
    arrays = loader.read_safetensors(arrays_path)
    told = {name: found(make, arrays) for name, make in forms.items() if (result / name).exists()}
    print(json.dumps({"torch": torch.__version__, "forms": told}))


if __name__ == "__main__":
    main()
