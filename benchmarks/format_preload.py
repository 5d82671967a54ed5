"""What the stages of `benchmarks.formats` import, for the process that they are forked from."""

import importlib

import torch

for name in (
    "benchmarks.format_stages",
    "compress.onnx.network",
    "onnxscript",
    "timm",
    "torchvision",
):
    importlib.import_module(name)
torch.set_num_threads(1)
