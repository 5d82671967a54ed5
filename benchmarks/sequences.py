"""LSTMs through the whole service: `python -m benchmarks.sequences`.

Networks that read MNIST row by row, 28 steps of 28 values, with 512 and with 128 states are trained
for three minutes at most, exported by torch.export, and sent to a service of their own with a
promise of half a point. What comes back is loaded and judged by a process that has none of our
packages, and run on other numbers of steps than it was exported for. With 512 states at least half
of the recurrent parameters are to go, and a third of the time; with 128 torch's own routine is
faster than any factors, and the answer is to be `no_gain`, with the reason.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.record import RESULTS, Record, Target
from examples.demo.server import served
from search.config import Budget, Objective
from search.data.builtin import builtin
from service.client import Client
from service.schemas import JobOrder
from service.settings import Settings

SECONDS: Final = {512: 170.0, 128: 60.0}  # of the processor, by states
TRAINING_BATCH: Final = 64
RATE: Final = 3e-3
WARM_UP: Final = 0.1
SENT: Final = 12_000  # of the training samples, for what is learnt without labels
STEPS: Final = 28
BATCH: Final = 16
THREADS: Final = 1
MAX_LOSS: Final = 0.5

STRANGER: Final = """
import json, sys
import numpy, torch
sys.modules.update(dict.fromkeys(["compress", "search", "service"]))
sys.path.insert(0, sys.argv[1])
from load import load
model = load(sys.argv[1])
data = numpy.load(sys.argv[2])
rows, labels = torch.from_numpy(data["rows"]), torch.from_numpy(data["labels"])
with torch.inference_mode():
    right = sum(
        int((model(x).argmax(1) == y).sum()) for x, y in zip(rows.split(500), labels.split(500))
    )
    apart, program = None, torch.export.load(sys.argv[1] + "/model.pt2").module()
    if any(name.startswith("lstm.weight_hh_l0.") for name in model.state_dict()):
        apart = float((program(rows[:3, :17]) - model(rows[:3, :17])).abs().max())
recurrent = sum(p.numel() for name, p in model.named_parameters() if name.startswith("lstm."))
print(json.dumps({"top1": 100 * right / len(labels), "recurrent": recurrent, "apart": apart}))
"""


class Reader(nn.Module):
    """(N, T, 28) to (N, 10): an LSTM, and a linear layer on its last state."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(28, states, batch_first=True)
        self.classify = nn.Linear(states, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.lstm(x)[0][:, -1])


def main() -> None:
    """Train, send, look at what comes back, and write the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sequences")
    parser.add_argument("--states", type=int, nargs="*", choices=SECONDS, default=[*SECONDS])
    parser.add_argument("--seconds", type=float, help="of training, in place of the usual ones")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the record")
    arguments = parser.parse_args()
    started_at, begun = datetime.now(UTC), time.monotonic()
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory(prefix="ranksearch-sequences-") as name:
        folder = Path(name)
        samples = _samples(folder)
        with served(folder) as client:
            dataset = client.upload_dataset(folder / "rows.npz", inputs=("rows",)).id
            rows = []
            for states in arguments.states:
                model = trained(states, *samples, arguments.seconds or SECONDS[states])
                rows.append(sent(client, dataset, model, folder / str(states), states))
                print(json.dumps(rows[-1], indent=1), flush=True)
    record = Record(
        command="python -m benchmarks.sequences",
        threads=THREADS,
        n=1,
        started_at=started_at,
        seconds=time.monotonic() - begun,
        rows=rows,
        targets=targets(rows),
    )
    print(record.write("sequences", arguments.results))


def trained(states: int, rows: Tensor, labels: Tensor, seconds: float) -> Reader:
    """A network that learnt for so many seconds of the processor.

    The rate rises over the first tenth of the way and falls in a line to zero at its end.

    Args:
        states: hidden ones of the LSTM.
        rows: (N, T, 28).
        labels: (N,).
        seconds: of learning.
    """
    torch.manual_seed(0)
    model, begun = Reader(states), time.process_time()
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    while (way := (time.process_time() - begun) / seconds) < 1:
        chosen = torch.randint(len(rows), (TRAINING_BATCH,))
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(way / WARM_UP, (1 - way) / (1 - WARM_UP))
        loss = F.cross_entropy(model(rows[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval().requires_grad_(False)


def sent(client: Client, dataset: str, model: Reader, folder: Path, states: int) -> dict[str, Any]:
    """What the service makes of a network, as a row of the record."""
    folder.mkdir()
    batch = {0: torch.export.Dim("batch", min=1, max=4096)}  # torch fixes the steps of an LSTM
    with warnings.catch_warnings(action="ignore"):  # of attributes that torch's LSTM sets
        program = torch.export.export(model, (torch.zeros(2, STEPS, 28),), dynamic_shapes=(batch,))
    torch.export.save(program, folder / "reader.pt2")
    order = JobOrder(
        model=client.upload_model(folder / "reader.pt2").id,
        dataset=dataset,
        budget=Budget(max_loss=MAX_LOSS, unit="points"),
        objective=Objective(batch=BATCH, threads=THREADS, device="cpu"),
    )
    begun = time.monotonic()
    *_, job = client.follow(client.submit(order).id)
    seconds = time.monotonic() - begun
    if job.verdict is None:
        raise RuntimeError(f"the job of {states} states ended as {job.state}: {job.reason}")
    for artifact in client.artifacts(job.id):
        client.download(artifact, folder / "result")
    manifest = json.loads((folder / "result" / "manifest.json").read_text("utf-8"))
    return row(states, model, manifest, seconds) | _judged(folder)


def row(states: int, model: Reader, manifest: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """What the result's manifest says of itself."""
    evidence = manifest["evidence"]
    measured = evidence["result"] or {}
    return {
        "states": states,
        "batch": BATCH,
        "seconds": round(seconds, 1),
        "verdict": evidence["verdict"],
        "sentence": evidence["sentence"],
        "dense_top1": evidence["dense"]["value"],
        "dense_latency_ms": evidence["dense"]["latency_ms"]["p50_ms"],
        "speedup": measured.get("speedup"),
        "speedup_low": measured.get("speedup_low"),
        "speedup_high": measured.get("speedup_high"),
        "loss": measured.get("loss"),
        "plan": manifest["plan"]["layers"],
        "kept_dense": evidence["kept_dense"],
        "dense_recurrent": sum(weight.numel() for weight in model.lstm.parameters()),
    }


def _samples(folder: Path) -> tuple[Tensor, Tensor]:
    """Rows and labels to learn from; a file of all that is sent is written."""
    data = builtin("mnist", Settings.from_environment().data_root)
    assert data.labels is not None
    assert data.train_inputs is not None
    assert data.train_labels is not None
    train, test = (_rows(each["images"]) for each in (data.train_inputs, data.inputs))
    np.savez(
        folder / "rows.npz",
        rows=test.numpy(),
        labels=data.labels.numpy(),
        train_rows=train[:SENT].numpy(),
        train_labels=data.train_labels[:SENT].numpy(),
    )
    return train, data.train_labels


def _rows(images: Any) -> Tensor:
    """(N, 28, 28) in [0, 1]."""
    values: Tensor = images.squeeze(1).float() / 255
    return values


def _judged(folder: Path) -> dict[str, Any]:
    """What somebody with torch alone finds."""
    command = [sys.executable, "-I", "-c", STRANGER, folder / "result", folder.parent / "rows.npz"]
    ended = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(ended.stdout)
    return {
        "recurrent": found["recurrent"],
        "stranger_top1": found["top1"],
        "other_steps_differ": found["apart"],
    }


def targets(rows: list[dict[str, Any]]) -> list[Target]:
    """What is wanted of the large network, and of the small one."""
    found = []
    for each in rows:
        name = f"{each['states']} states"
        if each["states"] < max(SECONDS):
            found.append(Target(f"{name}: verdict", "==", "no_gain", each["verdict"]))
            continue
        share = each["recurrent"] / each["dense_recurrent"]
        found += [
            Target(f"{name}: verdict", "==", "budget_met", each["verdict"]),
            Target(f"{name}: speedup", ">=", 1.5, each["speedup"]),
            Target(f"{name}: share of the recurrent parameters", "<=", 0.5, round(share, 4)),
            Target(f"{name}: other steps differ", "<=", 1e-4, each["other_steps_differ"]),
        ]
    return found


if __name__ == "__main__":
    main()
