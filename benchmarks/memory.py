"""Peak memory of one decomposition, in a child process, beside what was estimated before."""

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import Target
from compress.memory import peak_bytes
from compress.methods.registry import METHODS
from compress.shape import ConvShape

MEBIBYTE = 2**20
WIDE = ConvShape(in_channels=512, out_channels=512, kernel_size=(3, 3), bias=False)
METHOD, RANKS = "cp3", (512,)


def memory_rows(widest: int) -> list[dict[str, Any]]:
    """CP of 512 channels at rank 512, in both norms; none where that is wider than wanted."""
    return [_row(data_aware=aware) for aware in (False, True) if widest >= WIDE.out_channels]


def memory_targets(rows: list[dict[str, Any]]) -> list[Target]:
    """Within 2 GiB, and never above the estimate."""
    if not rows:
        return []
    ratio = max(row["mebibytes"] / row["estimated_mebibytes"] for row in rows)
    return [
        Target(
            "cp3 of 512 channels at rank 512, peak MiB",
            "<=",
            2048.0,
            max(row["mebibytes"] for row in rows),
        ),
        Target("peak memory over the estimate", "<=", 1.0, round(ratio, 3)),
    ]


def _row(*, data_aware: bool) -> dict[str, Any]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
        peak = child.submit(_peak, data_aware=data_aware).result()
    estimated = peak_bytes(WIDE, METHOD, RANKS, data_aware=data_aware)
    row = {
        "kind": "memory",
        "kernel": "512x512x3x3",
        "method": METHOD,
        "ranks": RANKS,
        "data_aware": data_aware,
        "mebibytes": round(peak / MEBIBYTE),
        "estimated_mebibytes": round(estimated / MEBIBYTE),
    }
    print(*(f"{key}={value}" for key, value in row.items()), flush=True)
    return row


def _peak(*, data_aware: bool) -> int:
    """Bytes at the peak of the decomposition less those before its inputs were made."""
    torch.set_num_threads(1)
    before = _status()["VmRSS"]
    generator = torch.Generator().manual_seed(0)
    size = WIDE.in_channels * 9
    weight = torch.randn(WIDE.out_channels, WIDE.in_channels, 3, 3, generator=generator)
    metric = None
    if data_aware:
        metric = torch.ones(size, size, dtype=torch.float64)
        metric.diagonal().add_(torch.rand(size, generator=generator).double())
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    METHODS[METHOD].decompose(WIDE, weight, metric).factors(RANKS)
    return _status()["VmHWM"] - before


def _status() -> Mapping[str, int]:
    """Bytes, as Linux counts them for this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): 1024 * int(size) for name, size, _ in sizes}
