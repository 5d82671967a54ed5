"""A network that has lost something learns it back, and one that cannot is left as it was."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress.plan import Choice, Plan
from compress.surgery import factorize_
from search.config import Recovery
from search.data.arrays import Arrays
from search.recovery import recovery, training
from search.recovery.aim import distance, labelled
from search.recovery.box import Box
from search.recovery.judge import Judge
from search.recovery.material import Example, Material
from search.recovery.range_test import LOWEST, MARGIN, bearable_rate
from search.recovery.recovery import recover_
from search.recovery.step import Stepper, learning
from search.recovery.training import train_
from tests.search.subjects import CPU, small

DIVERGENCE = distance("classes")


class Clock:
    """Goes on by a step whenever it is read."""

    def __init__(self, step=0.0):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def seconds(step=0.0):
    """Of which 100 readings make a box."""
    return Box(1.0, Clock(step))


@pytest.fixture
def dense():
    """A network whose answers differ from image to image."""
    model = small().eval().requires_grad_(False)
    model.classify.weight *= 20
    return model


@pytest.fixture
def material(dense):
    images = torch.randn(600, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = dense(images).argmax(1).detach()
    data = Arrays.of_images(images, labels)
    return Material(data, torch.arange(600), dense, CPU, train=False)


@pytest.fixture
def hurt(dense):
    """The network with noise in its weights."""
    model = copy.deepcopy(dense)
    generator = torch.Generator().manual_seed(2)
    for weight in model.parameters():
        noise = torch.randn(weight.shape, generator=generator)
        weight.add_(0.3 * weight.std(unbiased=False) * noise)
    return model


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_divergence_is_that_of_softened_answers_times_the_squared_temperature():
    found, wanted = torch.randn(6, 5), torch.randn(6, 5)
    p, q = ((each.double() / 2).softmax(1) for each in (wanted, found))
    expected = 4 * (p * (p / q).log()).sum(1).mean()
    example = Example(torch.empty(0), wanted, None)
    assert float(DIVERGENCE(found, example)) == pytest.approx(float(expected), rel=1e-5)
    assert float(DIVERGENCE(wanted, example)) == pytest.approx(0, abs=1e-6)


def test_values_are_compared_by_their_mean_square():
    found, wanted = torch.randn(6, 5, 2), torch.randn(6, 5, 2)
    example = Example(torch.empty(0), wanted, None)
    expected = float((found - wanted).square().mean())
    assert float(distance("values")(found, example)) == pytest.approx(expected)


def test_fine_tuning_minds_labels_and_answers_alike():
    found, wanted, labels = torch.randn(6, 5), torch.randn(6, 5), torch.arange(6) % 5
    example = Example(torch.empty(0), wanted, labels)
    expected = (F.cross_entropy(found, labels) + DIVERGENCE(found, example)) / 2
    torch.testing.assert_close(labelled(found, example), expected)


@pytest.mark.parametrize("method", ["distil", "finetune"])
def test_what_was_lost_is_learned_back(hurt, dense, material, method):
    x = torch.randn(200, 3, 8, 8)  # that neither learning nor judging saw

    def lost():
        return float((hurt(x).softmax(1) - dense(x).softmax(1)).square().mean())

    before = lost()
    config = Recovery(method=method, max_epochs=4)
    found = recover_(hurt, material, "classes", config, clock=Clock())
    assert found.method == method
    assert found.after < 0.7 * found.before
    assert found.epochs == 4
    assert lost() < 0.7 * before
    assert not hurt.training
    assert not any(weight.requires_grad for weight in hurt.parameters())
    assert all(weight.is_contiguous() for weight in hurt.parameters())


def test_the_dense_network_and_the_generator_of_all_are_left_as_they_were(hurt, dense, material):
    before, drawn = state(dense), torch.get_rng_state()
    recover_(hurt, material, "classes", Recovery(method="distil", max_epochs=1), clock=Clock())
    assert same(before, dense.state_dict())
    assert torch.equal(torch.get_rng_state(), drawn)


def test_the_same_seed_gives_the_same_network_and_another_seed_another(hurt, material):
    def recovered(seed):
        model = copy.deepcopy(hurt)
        model.relu3 = nn.Sequential(nn.ReLU(), nn.Dropout(0.1)).eval()
        config = Recovery(method="distil", max_epochs=1, seed=seed)
        recover_(model, material, "classes", config, clock=Clock())
        return state(model)

    first = recovered(1)
    torch.manual_seed(99)
    assert same(first, recovered(1))
    assert not same(first, recovered(2))


def test_a_rate_that_ruins_every_network_leaves_it_as_it_came(hurt, material, monkeypatch):
    monkeypatch.setattr(recovery, "bearable_rate", lambda *_, **__: 1e6)
    before, told = state(hurt), []
    config = Recovery(method="distil", max_epochs=2)

    def report(fraction, sentence):
        told.append(fraction)

    found = recover_(hurt, material, "classes", config, report, clock=Clock())
    assert told == sorted(told)
    assert same(before, hurt.state_dict())
    assert found.after == found.before
    assert found.rate == pytest.approx(1e6 / 16)  # the third attempt
    assert not hurt.training


def test_a_rate_that_is_somewhat_too_high_is_lowered_until_something_is_gained(
    hurt, material, monkeypatch
):
    monkeypatch.setattr(recovery, "bearable_rate", lambda *_, **__: 0.4)
    monkeypatch.setattr(recovery, "LOWER", 100.0)
    config = Recovery(method="distil", max_epochs=4)
    found = recover_(hurt, material, "classes", config, clock=Clock())
    assert found.rate == pytest.approx(0.004)
    assert found.after < found.before


def test_training_ends_early_where_nothing_gets_better(hurt, material):
    arguments = {"max_epochs": 8, "seed": 0, "box": seconds()}
    found = train_(hurt, DIVERGENCE, material, rate=1e6, **arguments)
    assert found.epochs == pytest.approx(8 * training.PATIENCE / 8)
    assert found.after == found.before


def test_training_ends_with_the_box(hurt, material):
    read = []
    found = train_(
        hurt,
        DIVERGENCE,
        material,
        rate=1e-3,
        max_epochs=1000,
        seed=0,
        box=seconds(0.01),
        report=lambda way, sentence: read.append((way, sentence)),
    )
    assert 0 < found.epochs < 100 / material.steps
    assert all(one <= other for (one, _), (other, _) in pairwise(read))
    assert 0.9 < read[-1][0] < 1
    assert read[-1][1].startswith("recovery: epoch ")


def test_a_box_that_is_spent_before_it_begins_changes_nothing(hurt, material):
    before = state(hurt)
    found = recover_(
        hurt, material, "classes", Recovery(method="distil", max_seconds=1), clock=Clock(0.6)
    )
    assert found.epochs == 0
    assert found.after == found.before
    assert same(before, hurt.state_dict())


@pytest.mark.parametrize(
    ("left", "cut_short"), [(0.5, True), (1.5, False), (math.inf, False), (-1.0, True)]
)
def test_a_box_ends_with_the_time_that_the_job_has_left(hurt, material, left, cut_short):
    config = Recovery(method="distil", max_seconds=1, max_epochs=1000)
    arguments = {"seconds_left": left, "clock": Clock(0.01)}
    found = recover_(hurt, material, "classes", config, **arguments)
    assert found.cut_short is cut_short
    most = max(0.0, min(left, 1.0))
    assert most <= found.seconds < most + 0.3  # a look or two, and what reads the clock besides


def test_a_training_that_ends_before_the_job_does_is_not_cut_short(hurt, material):
    config = Recovery(method="distil", max_seconds=1, max_epochs=1)
    found = recover_(hurt, material, "classes", config, seconds_left=0.9, clock=Clock())
    assert not found.cut_short


def test_the_rate_rises_for_a_tenth_of_the_way_and_falls_to_zero(hurt, material, monkeypatch):
    rates = []

    def step(self, example, rate):
        rates.append(rate)
        return 0.0

    monkeypatch.setattr(Stepper, "step", step)
    monkeypatch.setattr(training, "PATIENCE", 99)
    arguments = {"max_epochs": 5, "seed": 0, "box": seconds()}
    train_(hurt, DIVERGENCE, material, rate=2.0, **arguments)
    assert len(rates) == 5 * material.steps == 40
    assert rates[:5] == pytest.approx([0, 0.5, 1, 1.5, 2])
    assert rates[4:] == pytest.approx([2 * (40 - i) / 36 for i in range(4, 40)])


def test_the_range_test_stops_where_the_network_is_ruined(hurt, material, monkeypatch):
    found = []

    def step(self, example, rate):
        found.append(rate)
        return 1.0 if rate < 0.02 else 1e6

    monkeypatch.setattr(Stepper, "step", step)
    before = state(hurt)
    rate = bearable_rate(hurt, DIVERGENCE, material, seed=0, box=seconds())
    assert rate == found[-1] / MARGIN
    assert found[0] == LOWEST
    assert found[-2] < 0.02 <= found[-1]
    assert same(before, hurt.state_dict())


def test_the_range_test_leaves_the_network_alone_and_keeps_to_its_box(hurt, material):
    before = state(hurt)
    assert bearable_rate(hurt, DIVERGENCE, material, seed=0, box=seconds(2.0)) == LOWEST / MARGIN
    free = bearable_rate(hurt, DIVERGENCE, material, seed=0, box=seconds())
    assert LOWEST / MARGIN < free < 0.1
    assert same(before, hurt.state_dict())
    assert not hurt.training


def test_an_aim_that_is_no_number_is_ruin(hurt, material, monkeypatch):
    monkeypatch.setattr(Stepper, "step", lambda *_: math.nan)
    rate = bearable_rate(hurt, DIVERGENCE, material, seed=0, box=seconds())
    assert rate == LOWEST / MARGIN


def test_norms_keep_their_statistics_and_learn_the_rest(hurt, material):
    before = state(hurt)
    train_(hurt, DIVERGENCE, material, rate=1e-3, max_epochs=2, seed=0, box=seconds())
    assert torch.equal(hurt.norm1.running_mean, before["norm1.running_mean"])
    assert torch.equal(hurt.norm1.running_var, before["norm1.running_var"])
    assert not torch.equal(hurt.norm1.weight, before["norm1.weight"])
    assert not torch.equal(hurt.conv2.weight, before["conv2.weight"])


@pytest.fixture
def factorised(dense):
    model = copy.deepcopy(dense)
    factorize_(model, Plan({"conv2": Choice("svd", (3,))}))
    return model.eval().requires_grad_(False)


def test_what_comes_before_the_first_factorised_layer_stays_as_it_is(factorised, material):
    before = state(factorised)
    recover_(factorised, material, "classes", Recovery(method="distil", max_epochs=2))
    changed = {
        name for name, value in factorised.state_dict().items() if not same({name: value}, before)
    }
    assert {"conv2.reduce.weight", "norm2.weight", "conv3.weight", "classify.bias"} <= changed
    assert not changed & {"conv1.weight", "norm1.weight", "norm1.bias"}


def test_what_stays_as_it_is_takes_no_step_in_the_range_test_either(
    factorised, material, monkeypatch
):
    learned = set()

    def step(self, example, rate):
        named = self._model.named_parameters()
        learned.update(name for name, weight in named if weight.requires_grad)
        return 1.0

    monkeypatch.setattr(Stepper, "step", step)
    recover_(factorised, material, "classes", Recovery(method="distil", max_epochs=1))
    assert "conv3.weight" in learned
    assert not learned & {"conv1.weight", "norm1.weight", "norm1.bias"}


def test_dropout_is_on_while_a_network_learns_and_off_afterwards():
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3)).eval()
    with learning(model):
        assert model[0].training
        assert not model[1].training
    assert not model[0].training


def test_a_judge_looks_at_all_that_was_left_out_in_eval_mode(hurt, material):
    with learning(hurt):
        judge = Judge(hurt, DIVERGENCE, material, seconds())
        assert hurt.training
    examples = list(material.judging())
    wanted = torch.cat([example.answers for example in examples])
    inputs = torch.cat([example.inputs for example in examples])
    expected = DIVERGENCE(hurt(inputs), Example(inputs, wanted, None))
    assert judge.before == pytest.approx(float(expected), rel=1e-4)


def test_a_judge_that_takes_long_looks_at_less(hurt, material):
    assert material.left_out == 60  # one batch
    material._size = 10
    looked = []
    hurt.register_forward_pre_hook(lambda _, args: looked.append(len(args[0])))
    # A forward pass takes 0.005 of the second: 0.15 of it are 9 looks of three such batches.
    Judge(hurt, DIVERGENCE, material, Box(1.0, Clock(0.005)))
    assert looked == [10] * (1 + 3)


def test_a_judge_puts_the_best_back(hurt, material):
    judge = Judge(hurt, DIVERGENCE, material, seconds())
    best = state(hurt)
    with torch.no_grad():
        hurt.classify.weight[0] += 5
    assert not judge.look()
    with torch.no_grad():
        hurt.classify.weight.fill_(math.nan)
    assert not judge.look()
    judge.put_back_()
    assert same(best, hurt.state_dict())
