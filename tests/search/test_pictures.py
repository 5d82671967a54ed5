"""Pictures of an archive as a job reads them; torchvision and Pillow are the oracles."""

import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as tv
from torchvision.datasets import ImageFolder

from search.data.declaration import Declaration
from search.data.decoder import Decoder
from search.data.files import read_arrays
from search.data.transforms import CenterCrop, Channels, Resize
from search.errors import DataError
from tests.archives import encoded, folders, picture, shard, tar_of, zip_of

# Pillow resizes bytes with weights of eight bits and rounds after each axis.
LEVELS = 2


def write(tmp_path, content):
    path = tmp_path / "blob-without-a-suffix"
    path.write_bytes(content)
    return path


def all_of(arrays):
    return arrays.inputs["images"][torch.arange(len(arrays))]


@pytest.mark.parametrize("form", [zip_of, tar_of])
def test_samples_and_classes_are_those_of_torchvision(tmp_path, form):
    entries = folders(9, ("b", "a", "c"), prefix="val/") | folders(6, ("c", "b"), prefix="train/")
    with zipfile.ZipFile(io.BytesIO(zip_of(entries))) as archive:
        archive.extractall(tmp_path)
    arrays = read_arrays(write(tmp_path, form(entries)))
    oracle = ImageFolder(str(tmp_path / "val"))
    assert arrays.labels.tolist() == oracle.targets
    for found, (image, _) in zip(all_of(arrays), oracle, strict=True):
        assert np.array_equal(found.permute(1, 2, 0), np.asarray(image))
    # Of the training folder alone torchvision would number b and c from 0.
    assert arrays.train_labels.tolist() == [1, 1, 1, 2, 2, 2]
    assert arrays.train_count == 6


def test_labels_of_a_shard_belong_to_their_pictures(tmp_path):
    entries = dict(reversed(shard(12, 5).items()))
    arrays = read_arrays(write(tmp_path, tar_of(entries)))
    assert arrays.labels.tolist() == [n % 5 for n in range(12)]
    chosen = torch.tensor([7, 2])
    for found, n in zip(arrays.inputs["images"][chosen], chosen.tolist(), strict=True):
        wanted = np.asarray(Image.open(io.BytesIO(picture(n))))
        assert np.array_equal(found.permute(1, 2, 0), wanted)


@pytest.mark.parametrize(
    ("declared", "oracle"),
    [
        (Resize(20), tv.Resize(20)),
        (Resize((24, 30)), tv.Resize((24, 30))),
        (Resize(60), tv.Resize(60)),
        (CenterCrop((15, 14)), tv.CenterCrop((15, 14))),
        (CenterCrop((16, 33)), tv.CenterCrop((16, 33))),
        (Channels(1), tv.Grayscale()),
    ],
    ids=str,
)
def test_transforms_are_those_of_torchvision(tmp_path, declared, oracle):
    entries = {f"{n}.png": picture(n, (41, 34)) for n in range(3)}
    images = all_of(
        read_arrays(write(tmp_path, zip_of(entries)), Declaration(transforms=(declared,)))
    )
    for found, content in zip(images, entries.values(), strict=True):
        wanted = tv.functional.pil_to_tensor(oracle(Image.open(io.BytesIO(content))))
        assert found.shape == wanted.shape
        assert int((found.int() - wanted.int()).abs().max()) <= LEVELS


def test_arrays_are_transformed_as_pictures_are(tmp_path):
    entries = {f"{n}.png": picture(n, (41, 34)) for n in range(3)}
    declaration = Declaration(
        transforms=(Resize(20), CenterCrop((16, 18)), Channels(1)), mean=(0.5,), std=(0.2,)
    )
    decoded = [np.asarray(Image.open(io.BytesIO(c))).transpose(2, 0, 1) for c in entries.values()]
    np.savez(tmp_path / "a.npz", images=np.stack(decoded))
    index = torch.tensor([2, 0])
    one = read_arrays(write(tmp_path, zip_of(entries)), declaration).batch(index)
    other = read_arrays(tmp_path / "a.npz", declaration).batch(index)
    assert one.shape == (2, 1, 16, 18)
    assert torch.equal(one, other)


GREY = np.arange(30, dtype=np.uint8).reshape(6, 5) * 8


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        (Image.fromarray(GREY), GREY),
        (Image.fromarray(GREY.astype(np.uint16) * 256 + 99), GREY),
        (Image.fromarray(GREY).convert("P"), GREY),
        (Image.fromarray(np.stack([GREY] * 3 + [GREY * 0], 2)), GREY),
    ],
    ids=["grey", "sixteen bits", "palette", "transparent"],
)
def test_grey_of_any_kind_becomes_three_equal_channels(tmp_path, image, wanted):
    images = all_of(read_arrays(write(tmp_path, zip_of({"x.png": encoded(image)}))))
    assert np.array_equal(images[0], np.stack([wanted] * 3))


def test_inks_become_colours(tmp_path):
    image = Image.new("CMYK", (5, 6), (255, 0, 0, 0))
    images = all_of(read_arrays(write(tmp_path, zip_of({"x.jpg": encoded(image, "JPEG")}))))
    red, green, blue = images[0].float().mean((1, 2)).tolist()
    assert red < 60
    assert min(green, blue) > 180


def test_a_picture_is_decoded_once_and_only_when_it_is_asked_for(tmp_path, monkeypatch):
    decoded = []
    decode = Decoder.decode

    def counted(decoder, name, header, content):
        decoded.append(name)
        return decode(decoder, name, header, content)

    monkeypatch.setattr(Decoder, "decode", counted)
    arrays = read_arrays(write(tmp_path, zip_of(shard(6))))
    assert decoded == []
    first = arrays.batch(torch.tensor([3, 1]))
    again = arrays.batch(torch.tensor([1, 3, 1]))
    assert decoded == ["00003.png", "00001.png"]
    assert torch.equal(again, first[[1, 0, 1]])
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_picture_is_named(tmp_path, form):
    name = f"bad.{form.lower()}"
    content = picture(1, (40, 40), form)[:-60]
    arrays = read_arrays(write(tmp_path, zip_of({name: content})))
    with pytest.raises(DataError, match=rf"'{name}' cannot be decoded"):
        all_of(arrays)


def test_a_changed_byte_in_a_zip_is_found(tmp_path):
    large = picture(1, (160, 160))
    content = bytearray(zip_of({"a.png": large, "b.png": picture(2, (160, 160))}))
    content[content.index(large) + 70_000] ^= 1  # further in than a header is looked for
    arrays = read_arrays(write(tmp_path, bytes(content)))
    with pytest.raises(DataError, match=r"'a\.png' cannot be decoded.*CRC"):
        all_of(arrays)


def test_an_archive_is_no_sequence(tmp_path):
    with pytest.raises(DataError, match="images alone"):
        read_arrays(write(tmp_path, zip_of(shard())), Declaration(inputs=("tokens",)))
