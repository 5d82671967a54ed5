"""Pictures are varied as ordered, by what the generator draws, and by nothing else."""

import pytest
import torch

from search.config import Augmentation
from search.data.arrays import Arrays
from search.data.augmenter import Augmenter, varied
from search.data.transformed import Transformed
from search.data.transforms import CenterCrop, Channels

BOTH = Augmentation(flip=True, shift=2)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def numbered(height, width):
    """One picture whose pixels hold their own number."""
    return torch.arange(height * width).reshape(1, 1, height, width)


def drawn(images, size, config, count=200):
    """Varied copies of one picture, (count, *size)."""
    return varied(images.expand(count, -1, -1, -1), size, config, seeded())[:, 0]


def windows(picture, size, starts):
    """The windows of a picture (H, W) at these rows and columns."""
    height, width = size
    return {
        (top, left): picture[top : top + height, left : left + width]
        for top in starts[0]
        for left in starts[1]
    }


def places(found, among):
    """Where each of `found` lies, None where it is no such window."""
    return [
        next((at for at, window in among.items() if torch.equal(window, each)), None)
        for each in found
    ]


@pytest.mark.parametrize("sides", [(9, 8), (8, 5), (6, 6)])
def test_without_a_shift_a_crop_is_the_one_that_is_declared(sides):
    images = torch.randint(256, (5, 3, *sides), generator=seeded()).byte()
    declared = Transformed(images, [CenterCrop((6, 5))])
    index = torch.tensor([3, 0, 3])
    found = Augmenter(Augmentation(), seeded()).read(declared, index)
    assert found.dtype == torch.uint8
    assert torch.equal(found, declared[index])


def test_a_crop_is_moved_to_every_place_within_the_shift_and_to_no_other():
    found = drawn(numbered(10, 12), (4, 6), Augmentation(shift=2))
    within = windows(numbered(10, 12)[0, 0], (4, 6), (range(1, 6), range(1, 6)))
    assert set(places(found, within)) == set(within)


def test_a_picture_that_is_cropped_shows_what_the_crop_leaves_out():
    images = numbered(8, 9).int()
    cropped = Transformed(images, [CenterCrop((4, 5))])
    found = Augmenter(Augmentation(shift=2), seeded()).read(cropped, torch.zeros(200).long())
    within = windows(images[0, 0], (4, 5), (range(5), range(5)))
    assert set(places(found[:, 0], within)) == set(within)


def test_beyond_the_edges_they_are_repeated():
    found = drawn(numbered(4, 5), (4, 5), Augmentation(shift=2))
    wide = torch.nn.functional.pad(numbered(4, 5).float(), (2, 2, 2, 2), mode="replicate")
    within = windows(wide[0, 0].long(), (4, 5), (range(5), range(5)))
    assert set(places(found, within)) == set(within)


def test_half_of_the_pictures_are_mirrored_left_to_right():
    picture = numbered(3, 4)
    found = drawn(picture, (3, 4), Augmentation(flip=True))
    mirrored = [torch.equal(each, picture[0, 0].flip(1)) for each in found]
    assert all(
        m or torch.equal(each, picture[0, 0]) for m, each in zip(mirrored, found, strict=True)
    )
    assert 70 < sum(mirrored) < 130


def test_the_generator_decides_and_goes_on():
    images = torch.rand(6, 3, 8, 8)
    index = torch.arange(6)
    one, other = (Augmenter(BOTH, seeded()) for _ in range(2))
    first = one.read(images, index)
    assert torch.equal(first, other.read(images, index))
    assert not torch.equal(first, one.read(images, index))


def test_what_the_declaration_does_before_its_crop_is_done_and_a_crop_before_that_stays():
    images = torch.randint(256, (2, 3, 8, 8), generator=seeded()).byte()
    grey = Transformed(images, [CenterCrop((6, 6)), Channels(1), CenterCrop((4, 4))])
    assert grey.uncropped.shape == (2, 1, 6, 6)
    assert Transformed(images, [CenterCrop((6, 6)), Channels(1)]).uncropped.shape == (2, 1, 6, 6)
    index = torch.tensor([1, 0])
    assert torch.equal(grey.uncropped[index][:, :, 1:5, 1:5], grey[index])
    assert Augmenter(BOTH, seeded()).read(grey, index).shape == (2, 1, 4, 4)


def test_pictures_are_normalised_after_they_were_varied_and_other_inputs_stay():
    pictures = torch.randint(256, (4, 3, 6, 6), generator=seeded()).byte()
    data = Arrays.of_images(pictures, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    index = torch.arange(4)
    found = data.batch(index, read=Augmenter(BOTH, seeded()).read)
    plain = Augmenter(BOTH, seeded()).read(pictures, index)
    assert torch.equal(found, Arrays.of_images(plain, mean=data.mean, std=data.std).batch(index))
    several = Arrays(inputs={"images": pictures, "tokens": torch.arange(4)[:, None]})
    both = several.batch(index, read=Augmenter(BOTH, seeded()).read)
    assert torch.equal(both.tensors[0], plain.float() / 255)
    assert torch.equal(both.tensors[1], torch.arange(4)[:, None])
