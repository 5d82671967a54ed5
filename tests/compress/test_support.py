"""The README's table of what is supported is what `inspect` answers."""

import re
from pathlib import Path

import pytest
from torch import nn

from compress.catalog import METHODS
from compress.layers import inspect

README = (Path(__file__).parents[2] / "README.md").read_text()
_, HEAD, TABLE = re.search(
    r"## What is supported\n\n((\| layer .*\n)\|[-|]+\n((?:\|.*\n)+))", README
).groups()
ROWS = {
    name: dict(zip(METHODS, answers, strict=True))
    for name, *answers in (line.strip("| \n").split(" | ") for line in TABLE.splitlines())
}
LAYERS = {
    "Conv2d, ConvTranspose2d, k x k": [
        nn.Conv2d(64, 64, 3, stride=(1, 2), padding=1, padding_mode="reflect"),
        nn.Conv2d(64, 128, (3, 5), dilation=2, padding="same", bias=False),
        nn.ConvTranspose2d(128, 64, 4, stride=2, padding=1),
    ],
    "Conv2d, 1 x k": [nn.Conv2d(64, 64, (1, 5))],
    "Conv2d, k x 1": [nn.Conv2d(64, 64, (5, 1))],
    "Conv3d, ConvTranspose3d, k x k x k": [
        nn.Conv3d(64, 64, 3),
        nn.ConvTranspose3d(64, 64, 3, stride=2),
    ],
    "Conv1d, ConvTranspose1d, k": [nn.Conv1d(64, 64, 5), nn.ConvTranspose1d(64, 64, 5)],
    "convolution of one place (1 x 1)": [nn.Conv2d(64, 64, 1), nn.Conv3d(64, 64, 1, stride=2)],
    "grouped convolution: each group by itself": [
        nn.Conv2d(128, 128, 3, groups=2),
        nn.ConvTranspose3d(128, 128, 3, groups=4),
    ],
    "depthwise Conv2d": [nn.Conv2d(64, 64, 3, groups=64)],
    "Linear": [nn.Linear(64, 64)],
    "LSTM, GRU, RNN: each weight by itself": [
        nn.LSTM(64, 64),
        nn.GRU(64, 64, 2, bidirectional=True),
        nn.RNN(64, 64, nonlinearity="relu"),
    ],
    "Embedding": [nn.Embedding(64, 64)],
}


def test_the_table_has_a_column_for_each_method_and_rows_that_are_checked():
    assert re.findall(r"`(\w+)`", HEAD) == list(METHODS)
    assert ROWS.keys() == LAYERS.keys()


@pytest.mark.parametrize(
    ("name", "layer"),
    [(name, layer) for name, layers in LAYERS.items() for layer in layers],
    ids=str,
)
def test_a_layer_is_open_to_the_methods_of_its_row(name, layer):
    reports = inspect(layer)
    assert reports
    for report in reports:
        open_to = set() if report.reason else set(METHODS) - set(report.refusals)
        assert open_to == {method for method, answer in ROWS[name].items() if answer == "yes"}
        for method, answer in ROWS[name].items():
            if named := re.search(r"no: (?:the same as|use) (\w+)", answer):
                assert named[1] in report.refusals[method]
