"""A state dict that `torch.save` wrote, turned into safetensors by a child with little to spend.

    python -m compress.unpickling SOURCE TARGET

`torch.load(weights_only=True)` runs no code of the file, but it has been wrong about that before,
and it may be made to take all memory or time. So it happens in a process that is allowed a few
times the file's size, a few minutes, no larger file, and none of the service's settings. Exit code
0; 3 with one sentence on stdout for what is refused; anything else is a crash.
"""

import re
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from compress.confinement import confine, run_confined
from compress.errors import WeightsError
from compress.torch_archive import HINT

REFUSED: Final = 3
SPARE_BYTES: Final = 256 << 20
SECONDS: Final = 120
BYTES_PER_SECOND: Final = 20 << 20
MAX_TENSORS: Final = 65_536

# Under one of these a training script keeps the state dict, beside the optimizer's say; the first
# that is there counts.
WRAPPERS: Final = ("state_dict", "model_state_dict", "model_state", "model", "net", "network")


def to_safetensors(source: Path, target: Path) -> None:
    """Write the tensors of `source`, a checked archive of `torch.save`, as safetensors.

    Raises:
        WeightsError: it holds no state dict, or the child died of it.
    """
    seconds = _seconds(source.stat().st_size)
    try:
        ended = run_confined("compress.unpickling", source, target, seconds=seconds)
    except subprocess.TimeoutExpired as error:
        raise WeightsError(
            f"the file was given up on after {seconds:.0f} seconds: {HINT}"
        ) from error
    if ended.returncode == REFUSED:
        raise WeightsError(ended.stdout.strip())
    if ended.returncode != 0:
        raise WeightsError(
            f"reading the file took more memory than its size explains, or crashed: {HINT}"
        )


def main() -> int:
    """Read the first file of the command line, write the second."""
    import torch  # noqa: F401, PLC0415, before the limits: its own memory does not count
    from safetensors.torch import save_file  # noqa: PLC0415

    source, target = map(Path, sys.argv[1:])
    _limit(source.stat().st_size)
    try:
        tensors = unpickled(source)
    except WeightsError as error:
        print(error)
        return REFUSED
    save_file(tensors, target)
    return 0


def unpickled(source: Path) -> dict[str, Any]:
    """The tensors of a checked archive of `torch.save`, to be called in a process with limits.

    Raises:
        WeightsError: torch refuses it, or it holds no state dict.
    """
    import torch  # noqa: PLC0415, the parent needs none

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tensors that are refused below
            loaded = torch.load(source, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # malformed opcodes fail in as many ways as there are
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it names {found[1]}" if found else f"{type(error).__name__}"
        raise WeightsError(f"torch.load refuses the file ({what}): {HINT}") from error
    return dict(_tensors(_unwrapped(loaded), source.stat().st_size))


def _limit(size: int) -> None:
    confine(
        memory_bytes=6 * size + SPARE_BYTES,
        seconds=_seconds(size),
        file_bytes=4 * size + SPARE_BYTES,
    )


def _seconds(size: int) -> float:
    return SECONDS + size / BYTES_PER_SECOND


def _unwrapped(loaded: Any) -> Mapping[Any, Any]:
    """The state dict itself; one level may lie around it."""
    if isinstance(loaded, dict):
        inner = next((loaded[k] for k in WRAPPERS if isinstance(loaded.get(k), dict)), None)
        return loaded if inner is None else inner
    raise WeightsError(f"a {type(loaded).__name__} came, a state dict was wanted: {HINT}")


def _tensors(state: Mapping[Any, Any], size: int) -> Iterator[tuple[str, Any]]:
    """Each tensor in memory of its own, checked before it is copied."""
    import torch  # noqa: PLC0415

    if not 1 <= len(state) <= MAX_TENSORS:
        raise WeightsError(f"{len(state)} entries came, 1 to {MAX_TENSORS} tensors were wanted")
    total = 0
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise WeightsError(
                f"{name!r:.100} is a {type(value).__name__}, tensors by name: {HINT}"
            )
        if value.layout != torch.strided or value.is_quantized or value.is_complex():
            raise WeightsError(
                f"{name!r} is sparse, quantised or complex: a plain tensor was wanted"
            )
        if value.numel() * value.itemsize > value.untyped_storage().nbytes():
            raise WeightsError(f"{name!r} has more values than are stored")
        total += value.numel() * value.itemsize
        if total > 4 * size:
            raise WeightsError(f"the tensors share {size} bytes so often that they are a bomb")
        yield name, value.detach().clone(memory_format=torch.contiguous_format)


if __name__ == "__main__":
    sys.exit(main())
