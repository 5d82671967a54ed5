"""EfficientNet-Lite0: the renaming of its weights, on random ones, and its pictures."""

import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from compress.architectures import build
from examples.efficientnet_lite0 import package, pictures
from examples.efficientnet_lite0.__main__ import NAME, greatest_difference, row_of
from examples.efficientnet_lite0.renaming import renamed
from search.data.files import read_arrays

# Of the package's blocks, the number of the first in each stage: Tan and Le, ICML 2019, table 1.
STAGES = {0: 0, 1: 1, 3: 2, 5: 3, 8: 4, 11: 5, 15: 6}


def keys_of_the_package():
    """Every key of a state dict of the package, as its code names its layers."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    yield from ("_conv_stem.weight", "_conv_head.weight", "_fc.weight", "_fc.bias")
    yield from (f"{name}.{kind}" for name in ("_bn0", "_bn1") for kind in norm)
    for block in range(16):
        inside = ("depthwise", "project") if block == 0 else ("expand", "depthwise", "project")
        yield from (f"_blocks.{block}._{name}_conv.weight" for name in inside)
        numbers = (1, 2) if block == 0 else (0, 1, 2)
        yield from (f"_blocks.{block}._bn{n}.{kind}" for n in numbers for kind in norm)


def test_the_keys_of_the_package_become_those_of_timm_one_to_one():
    keys = list(keys_of_the_package())
    found = renamed({key: torch.tensor(i) for i, key in enumerate(keys)})
    assert len(found) == len(keys)
    assert found.keys() == build(NAME).state_dict().keys()


@pytest.mark.parametrize(("block", "stage"), STAGES.items())
def test_each_stage_begins_at_its_block(block, stage):
    (key,) = renamed({f"_blocks.{block}._bn1.weight": torch.empty(0)})
    assert key == f"blocks.{stage}.0.{'bn1' if block == 0 else 'bn2'}.weight"


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        ("_blocks.0._project_conv.weight", "blocks.0.0.conv_pw.weight"),
        ("_blocks.2._expand_conv.weight", "blocks.1.1.conv_pw.weight"),
        ("_blocks.14._project_conv.weight", "blocks.5.3.conv_pwl.weight"),
        ("_blocks.15._bn2.running_var", "blocks.6.0.bn3.running_var"),
        ("_bn1.bias", "bn2.bias"),
    ],
)
def test_layers_keep_their_part(key, wanted):
    assert list(renamed({key: torch.empty(0)})) == [wanted]


@pytest.mark.parametrize(
    "key", ["_blocks.16._bn1.weight", "_blocks.0._expand_conv.weight", "_se.weight", "blocks.0"]
)
def test_a_key_that_the_package_has_none_of_is_refused(key):
    with pytest.raises(KeyError, match="which EfficientNet-Lite0 of the package has none of"):
        renamed({key: torch.empty(0)})


def test_weights_are_read_in_the_form_that_torch_wrote_before_it_wrote_archives(tmp_path):
    state = {"_fc.bias": torch.arange(3.0)}
    torch.save(state, tmp_path / "weights.pth", _use_new_zipfile_serialization=False)
    found = package.read_weights(tmp_path / "weights.pth")
    assert torch.equal(found["_fc.bias"], state["_fc.bias"])


def test_other_weights_than_those_examined_are_refused(tmp_path):
    path = tmp_path / package.WEIGHTS
    path.parent.mkdir(parents=True)
    path.write_bytes(b"others")
    with pytest.raises(ValueError, match=r"has the SHA-256 .* was wanted"):
        package.install(tmp_path)


def test_pictures_of_a_folder_are_unlabelled_whatever_its_folders_are_called(tmp_path):
    for name, side in (("cat/a.png", 40), ("dog/b.JPG", 64), ("note.txt", 0)):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if side:
            Image.fromarray(np.full((side, side + 8, 3), 128, np.uint8)).save(path)
        else:
            path.write_text("no picture")
    target = tmp_path / "pictures.zip"
    assert pictures.archive_of(tmp_path / "pictures", target) == 2
    arrays = read_arrays(target, pictures.DECLARATION)
    assert arrays.labels is None
    images = arrays.batch(torch.arange(2))
    assert images.shape == (2, 3, 224, 224)
    torch.testing.assert_close(
        images, torch.full_like(images, 128 / 255 * 2 - 1), atol=0.01, rtol=0
    )


def test_squares_lie_within_the_photographs_and_are_the_same_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "_cifar", lambda root: iter([b"one"]))
    monkeypatch.setattr(pictures, "SQUARES", 2)
    archives = [tmp_path / "one.zip", tmp_path / "two.zip"]
    assert [pictures.offline_archive(tmp_path, path) for path in archives] == [5, 5]
    contents = []
    for path in archives:
        with zipfile.ZipFile(path) as archive:
            contents.append([archive.read(name) for name in archive.namelist()])
            with archive.open("00002.png") as file, Image.open(file) as image:
                assert image.width == image.height
                assert 160 <= image.width < 400
    assert contents[0] == contents[1]


def test_a_difference_is_relative_to_the_largest_output_of_the_other_network():
    def doubled(x):
        return 2 * x

    assert greatest_difference(doubled, lambda x: x) == 1.0
    assert greatest_difference(doubled, doubled) == 0.0


def test_a_row_says_what_was_lost_and_gained_or_that_nothing_was():
    evidence = {
        "objective": {"runtime": "eager", "batch": 2},
        "splits": {},
        "budget": {"max_loss": 5.0},
        "dense": {"latency_ms": {}, "parameters": 9},
        "result": None,
        "evaluations": 3,
        "verdict": "no_gain",
        "sentence": "None is faster.",
    }
    row = row_of(evidence, 0, "pictures")
    assert (row["lost"], row["speedup"], row["verdict"]) == (None, None, "no_gain")
    result = {"loss": {"value": 1.5, "upper": 2.5}, "speedup": 1.2, "parameters": 7}
    row = row_of(evidence | {"result": result}, 4, "pictures")
    assert (row["lost"], row["lost_at_most"], row["speedup"], row["parameters"]) == (
        1.5,
        2.5,
        1.2,
        7,
    )
