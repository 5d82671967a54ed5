import copy
from itertools import islice

import pytest
import torch
from torch import nn

from compress.batch import accept_batches_, tensors_of
from search.config import Augmentation, ConfigError, Recovery
from search.data.arrays import Arrays
from search.recovery import material as module
from search.recovery.material import Material, check_recovery
from tests.search.subjects import CPU, Lookup, numbered


def answers(count, classes=4):
    return torch.arange(count * classes, dtype=torch.float32).reshape(count, classes)


def material(count=200, *, train=False, index=None, labels=True):
    """Of images that hold their own number, with a dense network whose answers are written down."""
    data = numbered(count, torch.arange(count) % 4 if labels else None)
    if train:
        data = Arrays(
            inputs={"images": torch.zeros(7, 1, 1, 1)},
            train_inputs=data.inputs,
            train_labels=data.labels,
        )
    dense = Lookup(answers(count)).eval()
    index = torch.arange(count) if index is None else index
    return Material(data, index, dense, CPU, train=train), dense


def numbers(examples):
    return [int(number) for example in examples for number in example.inputs.flatten()]


@pytest.mark.parametrize("train", [False, True])
def test_what_is_learned_and_what_judges_are_different_samples_and_all_of_them(train):
    found, _ = material(train=train, index=torch.randperm(200))
    judging = numbers(found.judging())
    epoch = numbers(islice(found.examples(torch.Generator()), found.steps))
    assert len(judging) == found.left_out == 20
    assert len(found) == 180
    assert not set(judging) & set(epoch)
    assert len(set(epoch)) == len(epoch) == 180
    assert numbers(found.judging()) == judging


def test_samples_come_with_their_own_answers_and_labels():
    found, _ = material(train=True, index=torch.arange(50, 150))
    for example in islice(found.examples(torch.Generator()), 5):
        seen = example.inputs.flatten().long()
        assert ((seen >= 50) & (seen < 150)).all()
        assert torch.equal(example.answers, answers(200)[seen])
        assert torch.equal(example.labels, seen % 4)
    assert next(material(labels=False)[0].judging()).labels is None


def test_every_epoch_is_in_another_order_and_every_seed_gives_the_same_again():
    found, _ = material()

    def epochs():
        return numbers(islice(found.examples(torch.Generator().manual_seed(1)), 2 * found.steps))

    both = epochs()
    assert both[:180] != both[180:]
    assert epochs() == both


def test_the_dense_network_answers_a_sample_once():
    found, dense = material()
    dense.asked.clear()
    for _ in range(2):
        list(found.judging())
        list(islice(found.examples(torch.Generator()), 4 * found.steps))
    assert sorted(dense.asked) == list(range(200))


def pictures(count=40):
    return torch.randint(256, (count, 3, 6, 6), generator=torch.Generator().manual_seed(0)).byte()


def test_varied_pictures_come_with_what_the_dense_network_answers_to_them():
    data = Arrays.of_images(pictures(), torch.arange(40))
    dense = nn.Sequential(nn.Flatten(), nn.Linear(108, 3)).eval()
    varied = {"train": False, "augment": Augmentation(flip=True, shift=1)}
    found = Material(data, torch.arange(40), dense, CPU, **varied)
    plain = data.batch(torch.arange(40))

    def epoch():
        examples = found.examples(torch.Generator().manual_seed(1))
        return [example for _, example in zip(range(2 * found.steps), examples, strict=False)]

    examples = epoch()
    for example in examples:
        torch.testing.assert_close(example.answers, dense(example.inputs))
        assert not torch.equal(example.inputs, plain[example.labels])
    assert not torch.equal(examples[0].inputs, examples[1].inputs)
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(examples, epoch(), strict=True))
    (judged,) = found.judging()
    assert torch.equal(judged.inputs, plain[judged.labels])
    torch.testing.assert_close(judged.answers, dense(judged.inputs))


def test_what_cannot_be_varied_is_refused():
    varied = Recovery(method="distil", augment=Augmentation(shift=6))
    with pytest.raises(ConfigError, match="shift of 6 pixels came with images of shape"):
        check_recovery(varied, Arrays.of_images(pictures()))
    check_recovery(varied, Arrays.of_images(torch.zeros(4, 1, 7, 7)))
    with pytest.raises(ConfigError, match="augment came with data of x of shape"):
        check_recovery(varied, Arrays(inputs={"x": torch.zeros(4, 9)}))


def test_long_answers_leave_fewer_samples(monkeypatch):
    monkeypatch.setattr(module, "MOST_ANSWERS", 40)
    found, _ = material()  # of four values each
    assert len(found) + found.left_out == 10


def test_no_batch_is_a_single_sample_however_large_it_is(monkeypatch):
    monkeypatch.setattr(module, "BATCH_VALUES", 1)
    found, _ = material(31)  # 28 to learn from
    sizes = [len(example.answers) for example in islice(found.examples(torch.Generator()), 14)]
    assert sizes == [2] * 14
    monkeypatch.undo()
    found, _ = material(73)  # 66 of them: of a second batch there would be two
    sizes = [len(example.answers) for example in islice(found.examples(torch.Generator()), 3)]
    assert sizes == [64] * 3


def test_several_inputs_come_together():
    class Sum(nn.Module):
        def forward(self, x, y):
            return x + y

    data = Arrays(inputs={"x": torch.rand(40, 3), "y": torch.rand(40, 3)})
    dense = Sum().eval()
    accept_batches_(dense)
    found = Material(data, torch.arange(40), dense, CPU, train=False)
    example = next(found.judging())
    x, y = tensors_of(example.inputs)
    torch.testing.assert_close(example.answers, x + y)


def test_fine_tuning_needs_the_labels_of_what_is_trained_on():
    images = torch.zeros(4, 1, 1, 1)
    labels = torch.arange(4)
    tuning, distilling = Recovery(method="finetune"), Recovery(method="distil")
    bare = Arrays.of_images(images)
    half = Arrays.of_images(images, labels, train_images=images)
    with pytest.raises(ConfigError, match="finetune came with data without labels: add them, or"):
        check_recovery(tuning, bare)
    with pytest.raises(ConfigError, match="data without train_labels"):
        check_recovery(tuning, half)
    full = Arrays.of_images(images, train_images=images, train_labels=labels)
    for config, data in [
        (distilling, bare),
        (distilling, half),
        (tuning, full),
        (tuning, Arrays.of_images(images, labels)),
    ]:
        before = copy.copy(data)
        check_recovery(config, data)
        assert data == before
