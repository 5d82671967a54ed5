"""Files that a user may send: small networks as `.pt2` archives, and their weights."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

Form = Literal["program", "safetensors", "state_dict"]

WORDS: Final = 11
CLASSES: Final = 3
SIDE: Final = 8


class Convolutional(nn.Module):
    """Images (N, 2, 8, 8): convolutions of many kinds, norms, pooling, sizes that are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.apart = nn.Conv2d(4, 4, 3, stride=2, padding="valid", groups=4)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.other = nn.GroupNorm(2, 4)
        self.classify = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        y = nn.functional.interpolate(self.up(self.apart(x)), size=x.shape[2:], mode="bilinear")
        x = nn.functional.max_pool2d(torch.cat([x, self.other(y)], 1), 2)
        x = nn.functional.adaptive_avg_pool2d(x, (2, 2)).view(x.shape[0], -1, 2, 2)
        return self.classify(x.chunk(2, 1)[0].flatten(1))


class Recurrent(nn.Module):
    """Words (N, 5): an embedding, an LSTM both ways, a GRU, the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 4)
        self.lstm = nn.LSTM(4, 3, 2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(6, 4, batch_first=True)
        self.classify = nn.Linear(4, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        outputs, _ = self.gru(self.lstm(self.embed(words))[0])
        return self.classify(outputs[:, -1])


class Attentive(nn.Module):
    """Images (N, 2, 8, 8) as patches: attention, layer norms, a constant mask, tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(2, 8, 4, stride=4)
        self.before, self.after = nn.LayerNorm(8), nn.LayerNorm(8)
        self.project, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.again = nn.Linear(8, 8)
        self.again.weight = self.out.weight
        self.register_buffer("mask", torch.ones(4, 4).tril().bool(), persistent=False)
        self.classify = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        parts = self.project(self.before(x)).view(x.shape[0], x.shape[1], 3, 2, 4)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
        x = x + self.out(y.transpose(1, 2).reshape(x.shape))
        x = x + self.again(nn.functional.gelu(self.after(x)))
        return self.classify(x.mean(1))


@dataclass(frozen=True, slots=True)
class Original:
    """A file that is taken."""

    name: str
    form: Form
    content: bytes


def originals(folder: Path) -> list[Original]:
    """Each network as an archive, and its weights in both forms, written below `folder`."""
    images, words = torch.zeros(2, 2, SIDE, SIDE), torch.zeros(2, 5, dtype=torch.int64)
    torch.manual_seed(0)
    given: Mapping[str, tuple[nn.Module, Tensor]] = {
        "convolutional": (Convolutional().eval(), images),
        "recurrent": (Recurrent().eval(), words),
        "attentive": (Attentive().eval(), images),
    }
    found = []
    for name, (model, example) in given.items():
        paths: dict[Form, Path] = {
            form: folder / f"{name}.{form}" for form in ("program", "safetensors", "state_dict")
        }
        _export(model, example, paths["program"].with_suffix(".pt2"))
        paths["program"].with_suffix(".pt2").rename(paths["program"])
        state = model.state_dict()
        save_file({key: value.clone() for key, value in state.items()}, paths["safetensors"])
        torch.save({"state_dict": state}, paths["state_dict"])
        found += [Original(name, form, path.read_bytes()) for form, path in paths.items()]
    return found


def _export(model: nn.Module, example: Tensor, path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=4096)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, (example,), dynamic_shapes=({0: batch},))
        torch.export.save(program, path)
