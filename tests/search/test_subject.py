import copy

import pytest
import torch
from torch import nn

from compress.plan import Choice, Plan
from compress.surgery import is_factorized
from search import subject as subject_module
from search.config import Budget, Objective, SearchConfig
from search.data import Arrays
from search.errors import DataError
from search.subject import DeviceError, Subject, find_device
from tests.search.subjects import told_race

AGREEMENT = Budget(max_loss=5, unit="points", metric="agreement")
TOP1 = Budget(max_loss=5, unit="points", metric="top1")


@pytest.fixture(autouse=True)
def no_timing(monkeypatch):
    monkeypatch.setattr(subject_module, "race", told_race)


def arrays(count=120, channels=3, classes=5, training=0):
    images = torch.randint(0, 256, (count, channels, 8, 8)).byte()
    train = torch.randint(0, 256, (training, channels, 8, 8)).byte() if training else None
    return Arrays(images=images, labels=torch.arange(count) % classes, train_images=train)


def prepared(model, data, budget=AGREEMENT, **objective):
    config = SearchConfig(budget=budget, objective=Objective(device="cpu", **objective))
    return Subject.prepare(model, data, config, {})


def test_the_model_is_left_as_it_is(tiny):
    tiny.train()
    before = copy.deepcopy(tiny.state_dict())
    subject = prepared(tiny, arrays())
    assert tiny.training
    assert all(torch.equal(value, before[key]) for key, value in tiny.state_dict().items())
    assert all(weight.requires_grad for weight in tiny.parameters())
    assert not subject.dense.training
    assert subject.dense is not tiny


def test_the_baseline_is_the_accuracy_on_the_search_split(tiny):
    data = arrays()
    subject = prepared(tiny, data, TOP1)
    right = sum(
        int(tiny.eval()(subject.search.inputs(i, i + 1)).argmax()) == int(label)
        for i, label in enumerate(subject.search._labels)
    )
    assert subject.baseline.value == pytest.approx(100 * right / len(subject.search))
    assert subject.baseline.samples == len(subject.search) == round(0.4 * 96)
    assert subject.baseline.parameters == sum(weight.numel() for weight in tiny.parameters())
    # by hand: 3 -> 8 at 8 x 8, 8 -> 12 and 12 -> 16 at 4 x 4, 16 -> 5
    assert subject.baseline.macs == 64 * 8 * 27 + 16 * 12 * 72 + 16 * 16 * 108 + 80


def test_the_timed_input_has_the_batch_of_the_objective_however_few_images_there_are(tiny):
    subject = prepared(tiny, arrays(40), batch=32)
    assert len(torch.cat(subject.calibration)) == 8
    assert subject.example.shape == (32, 3, 8, 8)


def test_calibration_comes_from_the_training_images_where_there_are_some(tiny):
    data = arrays(100, training=600)
    subject = prepared(tiny, data)
    images = torch.cat(subject.calibration)
    assert len(images) == 512
    known = {row.numpy().tobytes() for row in data.inputs(data.train_images)}
    assert all(row.numpy().tobytes() in known for row in images)


def test_an_assembled_network_is_factorised_in_the_layers_of_the_plan_alone(tiny):
    subject = prepared(tiny, arrays())
    plan = Plan({"conv3": Choice("svd", (8,))})
    before = copy.deepcopy(subject.dense.state_dict())
    model = subject.assemble(plan)
    assert is_factorized(model.conv3)
    assert not model.training
    assert type(model.conv2) is nn.Conv2d
    x = subject.example
    assert not torch.equal(model(x), subject.dense(x))
    assert all(torch.equal(value, before[key]) for key, value in subject.dense.state_dict().items())
    shared = {w.data_ptr() for w in model.parameters()} & {
        w.data_ptr() for w in subject.dense.parameters()
    }
    assert not shared


def test_the_same_plan_gives_the_same_network(tiny):
    plan = Plan({"conv2": Choice("svd", (4,)), "conv3": Choice("svd", (8,))})
    first, second = (prepared(tiny, arrays_of()).assemble(plan) for arrays_of in (fixed, fixed))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def fixed():
    torch.manual_seed(5)
    return arrays()


def test_what_was_settled_is_kept_and_the_rest_found_again(tiny):
    subject = prepared(tiny, arrays())
    kept, other = Choice("svd", (4,)), Choice("svd", (8,))
    subject.collect(["conv3"])
    wanted = {choice: subject.factors("conv3", choice) for choice in (kept, other)}
    subject.settle("conv3", [kept])
    assert subject.has_factors("conv3", kept)
    assert not subject.has_factors("conv3", other)
    assert subject.metric("conv3") is None
    subject.collect(["conv3"])
    again = subject.factors("conv3", other)
    for stage, factor in wanted[other].items():
        torch.testing.assert_close(again[stage], factor)


def test_labels_beyond_the_outputs_are_refused(tiny):
    with pytest.raises(DataError, match="label 6 came, the network has 5 outputs"):
        prepared(tiny, arrays(classes=7), TOP1)
    prepared(tiny, arrays(classes=7), AGREEMENT)  # which looks at no label


def test_images_that_the_network_does_not_take_are_refused(tiny):
    with pytest.raises(DataError, match=r"refuses images of shape \(1, 8, 8\)"):
        prepared(tiny, arrays(channels=1))


def test_a_network_that_answers_nonsense_is_refused(tiny):
    with torch.no_grad():
        tiny.classify.bias[0] = float("nan")
    with pytest.raises(DataError, match="not finite"):
        prepared(tiny, arrays())


@pytest.mark.parametrize(
    ("tail", "budget", "message"),
    [
        (nn.Unflatten(1, (5, 1)), TOP1, r"\(N, classes\) was wanted for top1"),
        (nn.LSTM(5, 5), AGREEMENT, "answers tuple, a tensor was wanted"),
    ],
)
def test_answers_without_classes_are_refused(tiny, tail, budget, message):
    with pytest.raises(DataError, match=message):
        prepared(nn.Sequential(tiny, tail), arrays(), budget)


def test_mse_takes_answers_of_any_shape(tiny):
    budget = Budget(max_loss=0.1, unit="points", metric="mse")
    subject = prepared(nn.Sequential(tiny, nn.Unflatten(1, (5, 1))), arrays(), budget)
    assert subject.baseline.value == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_without_a_gpu_is_refused_and_auto_is_the_cpu():
    with pytest.raises(DeviceError, match="choose cpu or auto"):
        find_device("cuda")
    assert find_device("auto") == torch.device("cpu")
