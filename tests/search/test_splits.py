import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search.data.arrays import Arrays
from search.errors import DataError
from search.splits import make_splits


def arrays(count, training=0, labels=None):
    if labels is None:
        labels = torch.arange(count) % 2
    train = torch.zeros(training, 1, 2, 2).byte() if training else None
    return Arrays.of_images(torch.zeros(count, 1, 2, 2).byte(), labels=labels, train_images=train)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(40, 400), training=st.sampled_from([0, 20, 600]), seed=st.integers(0, 99))
def test_splits_are_disjoint_and_use_every_image(count, training, seed):
    splits = make_splits(arrays(count, training), needs_labels=False, seed=seed)
    used = [splits.search, splits.confirmation]
    if training:
        assert splits.calibration_is_training
        assert len(splits.calibration) == min(512, training)
        assert splits.calibration.max() < training
    else:
        used.append(splits.calibration)
    assert torch.cat(used).sort().values.tolist() == list(range(count))


@pytest.mark.parametrize(("training", "wanted"), [(2000, (512, 400, 600)), (0, (200, 320, 480))])
def test_shares_are_forty_to_sixty_after_calibration(training, wanted):
    splits = make_splits(arrays(1000, training), needs_labels=True)
    sizes = len(splits.calibration), len(splits.search), len(splits.confirmation)
    assert sizes == wanted


def test_calibration_takes_512_images_at_most_and_leaves_the_rest_to_the_others():
    splits = make_splits(arrays(10_000), needs_labels=True)
    assert len(splits.calibration) == 512
    assert len(splits.search) == round(0.4 * 9488)


def test_the_order_is_that_of_the_digests():
    splits = make_splits(arrays(50, 10), needs_labels=True, seed=3)
    wanted = sorted(range(50), key=lambda i: hashlib.sha256(f"3:{i}".encode()).hexdigest())
    assert torch.cat([splits.search, splits.confirmation]).tolist() == wanted


def test_sorted_classes_end_up_in_all_splits():
    labels = torch.arange(1000) // 100
    splits = make_splits(arrays(1000, labels=labels), needs_labels=True)
    for part in (splits.search, splits.confirmation):
        assert labels[part].unique().tolist() == list(range(10))


def test_too_few_samples_for_three_splits_are_refused():
    with pytest.raises(DataError, match=r"2 samples came.*calibration split would be empty"):
        make_splits(arrays(2), needs_labels=True)


def test_a_single_class_is_refused_where_labels_count():
    data = arrays(100, labels=torch.full((100,), 7))
    with pytest.raises(DataError, match="class 7"):
        make_splits(data, needs_labels=True)
    make_splits(data, needs_labels=False)


def test_missing_labels_are_refused_only_where_they_are_needed():
    data = Arrays.of_images(torch.zeros(100, 1, 2, 2).byte())
    with pytest.raises(DataError, match="agreement or mse"):
        make_splits(data, needs_labels=True)
    assert len(make_splits(data, needs_labels=False).search) == 32
