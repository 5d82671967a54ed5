"""A network of one's own through the service and back, by somebody who has none of our packages.

    python -I outsider.py URL FOLDER [TOKEN]

Run on its own, never imported. Trains a residual network on the handwritten digits of
scikit-learn, writes it with torch.export, sends it with half of the digits that it has not seen,
and takes what comes back: the result is loaded, judged by the other half, and trained one epoch
further. One JSON object on stdout tells what was seen.
"""

import importlib.util
import io
import json
import math
import sys
import time
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

EPOCHS = 12
BATCH = 64
ORDER = {
    "budget": {"max_loss": 5, "unit": "points", "confidence": 0.9},
    "objective": {"batch": 8},
    "search": {"strategy": "estimation", "max_evaluations": 4},
    "methods": ["svd", "tucker2"],
}
ENDED = ("succeeded", "failed", "cancelled")


class Block(nn.Module):
    """Two convolutions beside a way around them, gated channel by channel."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.gate = nn.Linear(outputs, outputs)
        self.around = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.second(F.silu(self.norm1(self.first(x)))))
        gate = torch.sigmoid(self.gate(y.mean((2, 3))))
        return F.silu(y * gate[:, :, None, None] + self.around(x))


class MyResNet(nn.Module):
    """(N, 1, 16, 16) -> (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3, padding=1)
        self.blocks = nn.Sequential(Block(32, 48, 2), Block(48, 96, 1))
        self.classify = nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.blocks(F.silu(self.stem(x))).mean((2, 3)))


def digits() -> tuple[Tensor, Tensor]:
    """Images (1797, 1, 16, 16) in a fixed random order, and their labels."""
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    small = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    return F.interpolate(small, scale_factor=2, mode="bilinear")[order], torch.tensor(labels)[order]


def train(network: nn.Module, images: Tensor, labels: Tensor, epochs: int, rate: float) -> float:
    """Train with Adam at a rate that falls; the mean loss of the last epoch."""
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    steps = epochs * math.ceil(len(images) / BATCH)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=steps)
    generator = torch.Generator().manual_seed(0)
    network.train()
    losses: list[float] = []
    for _ in range(epochs):
        losses = []
        for chosen in torch.randperm(len(images), generator=generator).split(BATCH):
            loss = F.cross_entropy(network(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            decay.step()
            losses.append(loss.item())
    return sum(losses) / len(losses)


@torch.inference_mode()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Percent of images that the network, put in eval mode, classifies right."""
    network.eval()
    return 100 * float((network(images).argmax(1) == labels).float().mean())


class Service:
    """The HTTP API, as its description tells."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = f"{url}/v1"
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def post(self, path: str, body: bytes | dict[str, Any]) -> dict[str, Any]:
        """What comes back for a file or an object."""
        kind, content = "application/octet-stream", body
        if isinstance(body, dict):
            kind, content = "application/json", json.dumps(body).encode()
        headers = self._headers | {"Content-Type": kind}
        request = urllib.request.Request(f"{self._url}{path}", content, headers)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def get(self, path: str) -> bytes:
        """The bytes of a document or a file."""
        request = urllib.request.Request(f"{self._url}{path}", headers=self._headers)
        with urllib.request.urlopen(request) as answer:
            return answer.read()

    def ended(self, job_id: str) -> dict[str, Any]:
        """A job once it has ended."""
        while (job := json.loads(self.get(f"/jobs/{job_id}")))["state"] not in ENDED:
            time.sleep(0.5)
        return job


def exported(network: nn.Module, path: Path) -> bytes:
    """The network as a program, for batches of any size."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    shapes = ({0: batch},)
    program = torch.export.export(
        network.eval(), (torch.zeros(2, 1, 16, 16),), dynamic_shapes=shapes
    )
    torch.export.save(program, path)
    return path.read_bytes()


def loaded(folder: Path) -> nn.Module:
    """The network of a result."""
    spec = importlib.util.spec_from_file_location("load", folder / "load.py")
    assert spec is not None
    assert spec.loader is not None
    load = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(load)
    return load.load(folder)


def main() -> None:
    """Train, send, wait, fetch, judge, train further."""
    url, folder, token = sys.argv[1], Path(sys.argv[2]), next(iter(sys.argv[3:]), None)
    torch.manual_seed(0)
    images, labels = digits()
    train_set, sent, kept = (
        (images[a:b], labels[a:b]) for a, b in ((0, 797), (797, 1397), (1397, 1797))
    )
    network = MyResNet()
    train(network, *train_set, epochs=EPOCHS, rate=3e-3)

    service = Service(url, token)
    model = service.post("/models", exported(network, folder / "mine.pt2"))
    arrays = io.BytesIO()
    np.savez(arrays, images=sent[0].numpy(), labels=sent[1].numpy())
    dataset = service.post("/datasets", arrays.getvalue())
    job = service.post("/jobs", ORDER | {"model": model["id"], "dataset": dataset["id"]})
    job = service.ended(job["id"])
    told = {"verdict": job["verdict"], "reason": job["reason"], "before": accuracy(network, *kept)}
    files = json.loads(service.get(f"/jobs/{job['id']}/artifacts"))["data"]
    archives = [file["id"] for file in files if file["name"] == "result.zip"]
    if archives:
        with zipfile.ZipFile(
            io.BytesIO(service.get(f"/artifacts/{archives[0]}/content"))
        ) as archive:
            archive.extractall(folder / "result")
        found = loaded(folder / "result")
        told["after"] = accuracy(found, *kept)
        told["parameters"] = [sum(p.numel() for p in n.parameters()) for n in (network, found)]
        program = torch.export.load(folder / "result" / "model.pt2").module()
        with torch.inference_mode():
            difference = (program(kept[0]) - found(kept[0])).abs().max()
        told["difference"] = float(difference)
        told["loss"] = [train(found, *train_set, epochs=epochs, rate=1e-4) for epochs in (1, 1)]
        told["tuned"] = accuracy(found, *kept)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
