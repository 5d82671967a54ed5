"""A result in 8 bits for onnxruntime: `python -m examples.after.quantise_graph RESULT ARRAYS`.

RESULT is an unpacked result; ARRAYS is a safetensors file with float32 `images` (N, C, H, W) as
the network takes them. `model.int8.onnx` is written beside `model.onnx`: weights by channel,
activations by their range on the images.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from compress.load import read_safetensors

BATCH = 32


class Images(CalibrationDataReader):
    """Hands the images over, batch by batch."""

    def __init__(self, images: np.ndarray) -> None:
        self._batches: Iterator[np.ndarray] = iter(
            [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"input": batch}


def quantise(result: Path, images: np.ndarray) -> Path:
    """Write `model.int8.onnx` into the folder of a result.

    Args:
        result: the folder.
        images: (N, C, H, W) float32, some hundred of those that the network will meet.
    """
    path = result / "model.int8.onnx"
    quantize_static(
        str(result / "model.onnx"),
        str(path),
        Images(images),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8,
    )
    return path


if __name__ == "__main__":
    folder, arrays = map(Path, sys.argv[1:])
    print(quantise(folder, read_safetensors(arrays)["images"].numpy()))
