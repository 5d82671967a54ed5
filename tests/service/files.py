"""Uploads, good and bad, written by the libraries that people write them with."""

import io
import json
import struct
import zipfile

import numpy as np
import safetensors.numpy

RANDOM = np.random.default_rng(0)


def weights(**tensors: np.ndarray) -> bytes:
    """A safetensors file; by default of one convolution with its batch norm."""
    default = {
        "conv1.weight": np.ones((4, 1, 3, 3), np.float32),
        "norm1.running_mean": np.zeros(4, np.float32),
        "norm1.num_batches_tracked": np.array(7, np.int64),
    }
    return safetensors.numpy.save(tensors or default)


def raw_safetensors(header: dict | bytes, data: bytes = b"") -> bytes:
    """A file with exactly this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def arrays(samples: int = 20, channels: int = 1, **others: np.ndarray) -> dict[str, np.ndarray]:
    """Images of 4 x 5 and labels of three classes."""
    images = RANDOM.integers(0, 256, (samples, channels, 4, 5), dtype=np.uint8)
    return {"images": images, "labels": np.arange(samples) % 3, **others}


def npz(entries: dict[str, np.ndarray], *, compressed: bool = False) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **entries)
    return file.getvalue()


def arrays_npz(**others: np.ndarray) -> bytes:
    return npz(arrays(**others))


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=True)
    return file.getvalue()


def zipped(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive of any entries."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()
