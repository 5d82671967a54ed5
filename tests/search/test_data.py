import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from search.data.arrays import Arrays
from search.data.builtin import builtin
from search.data.declaration import Declaration
from search.data.files import read_arrays
from search.errors import DataError


def images(count=4, channels=3, size=5):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, size, size), generator=generator).byte()


@pytest.mark.parametrize("form", ["npz", "safetensors"])
def test_both_formats_give_the_arrays_that_were_written(tmp_path, form):
    path = tmp_path / "blob-without-a-suffix"
    wanted = {"images": images(), "labels": torch.tensor([0, 1, 2, 1], dtype=torch.int32)}
    if form == "npz":
        with path.open("wb") as file:
            np.savez(file, **{name: tensor.numpy() for name, tensor in wanted.items()})
    else:
        save_file(wanted, path)
    arrays = read_arrays(path, Declaration(mean=(0.5,) * 3, std=(0.2,) * 3))
    assert torch.equal(arrays.inputs["images"], wanted["images"])
    assert arrays.labels.dtype == torch.int64
    assert arrays.labels.tolist() == [0, 1, 2, 1]
    assert arrays.train_inputs is None
    assert arrays.std == (0.2, 0.2, 0.2)


def test_a_network_is_given_bytes_divided_by_255_then_normalised_by_channel():
    pictures = images()
    arrays = Arrays.of_images(pictures, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    x = arrays.batch(torch.arange(4))
    for n, c in ((0, 0), (1, 1), (3, 2)):
        pixel = int(pictures[n, c, 2, 4])
        wanted = (pixel / 255 - arrays.mean[c]) / arrays.std[c]
        assert float(x[n, c, 2, 4]) == pytest.approx(wanted, abs=1e-6)


def test_float_images_reach_the_network_as_they_are():
    x = torch.randn(2, 1, 3, 3)
    assert torch.equal(Arrays.of_images(x).batch(torch.tensor([1, 0])), x.flip(0))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"images": torch.zeros(3, 4, 4)}, r"\(3, 4, 4\).*\(N, C, H, W\)"),
        ({"images": torch.zeros(3, 1, 4, 4).double()}, "float64"),
        ({"images": torch.zeros(0, 1, 4, 4)}, "at least one"),
        ({"images": torch.full((1, 1, 2, 2), float("nan"))}, "not finite"),
        ({"images": images(4), "labels": torch.tensor([0, 1, 2])}, r"\(3,\).*\(4,\)"),
        ({"images": images(2), "labels": torch.tensor([0.0, 1.0])}, "float32.*int64"),
        ({"images": images(2), "labels": torch.tensor([0, -1])}, "-1"),
        ({"images": images(2), "train_images": images(2, size=6)}, r"\(3, 6, 6\).*\(3, 5, 5\)"),
        ({"images": images(2), "mean": (0.5,)}, "1 values.*3"),
        ({"images": images(2), "std": (1.0, 0.0, 1.0)}, "positive"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_with_what_was_wanted(wrong, message):
    with pytest.raises(DataError, match=message):
        Arrays.of_images(**wrong)


def test_a_file_that_is_neither_format_is_refused(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"not an array" * 10)
    with pytest.raises(DataError, match="npz, npy, safetensors, zip or tar"):
        read_arrays(path)


def test_a_pickled_array_is_refused_without_being_read(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, images=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="allow_pickle"):
        read_arrays(path)


def test_an_array_of_another_name_is_refused(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, images=images().numpy(), label=np.zeros(4))
    with pytest.raises(DataError, match=r"\['label'\]"):
        read_arrays(path)


def test_a_file_without_images_is_refused(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, labels=np.zeros(4, dtype=np.int64))
    with pytest.raises(DataError, match="'images' was wanted"):
        read_arrays(path)


def test_digits_are_all_there_in_32_by_32_with_their_labels():
    arrays = builtin("digits", None)
    assert arrays.train_inputs["images"].shape == (900, 1, 32, 32)
    assert arrays.inputs["images"].shape == (897, 1, 32, 32)
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(1797)
    assert arrays.labels.tolist() == bunch.target[order[900:]].tolist()
    # Away from the border, the mean of each 4 x 4 block of a bilinear enlargement by four lies
    # between the extremes of the pixel and its neighbours.
    small, large = bunch.images[order[900]], arrays.inputs["images"][0, 0].double() / 255 * 16
    blocks = large.reshape(8, 4, 8, 4).mean((1, 3))
    for y in range(1, 7):
        for x in range(1, 7):
            around = small[y - 1 : y + 2, x - 1 : x + 2]
            assert around.min() - 0.1 <= blocks[y, x] <= around.max() + 0.1


def test_cifar10_folders_are_read_in_the_order_of_their_names(tmp_path):
    colours = {"airplane": (255, 0, 0), "bird": (0, 0, 255)}
    for part in ("train", "test"):
        for name, colour in colours.items():
            folder = tmp_path / "cifar10" / part / name
            folder.mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (32, 32), colour).save(folder / f"{i:04}.jpg", quality=95)
    arrays = builtin("cifar10", tmp_path)
    assert arrays.inputs["images"].shape == (4, 3, 32, 32)
    assert arrays.train_inputs["images"].shape == (4, 3, 32, 32)
    assert arrays.labels.tolist() == [0, 0, 1, 1]
    assert arrays.inputs["images"][0, :, 0, 0].tolist() == pytest.approx([255, 0, 0], abs=3)  # JPEG
    assert arrays.inputs["images"][3, :, 0, 0].tolist() == pytest.approx([0, 0, 255], abs=3)


def idx(array):
    """A file of the format that MNIST comes in: type and dimensions, big-endian, then bytes."""
    header = bytes((0, 0, 8, array.ndim))
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + sizes + array.astype(np.uint8).tobytes()


def test_mnist_is_read_from_its_raw_files(tmp_path):
    raw = tmp_path / "mnist" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 3), ("t10k", 2)):
        pixels = np.arange(count * 784).reshape(count, 28, 28) % 251
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(pixels))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(count) + 5))
    arrays = builtin("mnist", tmp_path)
    assert arrays.inputs["images"].shape == (2, 1, 28, 28)
    assert arrays.train_inputs["images"].shape == (3, 1, 28, 28)
    assert int(arrays.inputs["images"][1, 0, 0, 1]) == 785 % 251
    assert arrays.labels.tolist() == [5, 6]


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_built_in_set_that_is_not_there_says_what_was_wanted(tmp_path, name):
    with pytest.raises(DataError, match=f"{name}.*wanted|wanted.*{name}"):
        builtin(name, tmp_path)


def test_an_unknown_built_in_set_is_refused(tmp_path):
    with pytest.raises(DataError, match="'imagenet' came, one of"):
        builtin("imagenet", tmp_path)


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_grey_images_without_a_channel_and_of_any_precision_are_read(tmp_path, kind):
    grey = np.linspace(0, 1, 24, dtype=kind).reshape(2, 3, 4)
    path = tmp_path / "data.npz"
    np.savez(path, images=grey)
    found = read_arrays(path).inputs["images"]
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.from_numpy(grey[:, None].astype(np.float32)))
