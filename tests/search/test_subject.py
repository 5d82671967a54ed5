import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from compress.equivalent import dense_weight
from compress.errors import CompressError
from compress.methods.registry import METHODS
from compress.metric import Metric, MetricError, ModeMoments
from compress.plan import Choice, Plan
from compress.surgery import is_factorized
from search import subject as subject_module
from search.config import (
    Augmentation,
    Budget,
    ConfigError,
    Limits,
    Objective,
    Recovery,
    SearchConfig,
)
from search.data.arrays import Arrays
from search.devices import find_device
from search.errors import DataError, DeviceError
from search.subject import Subject
from tests.search.subjects import small, told_race

TRAIN = Choice("tensor_train", (8, 8, 8))  # which does not know its error
AGREEMENT = Budget(max_loss=5, unit="points", metric="agreement")
TOP1 = Budget(max_loss=5, unit="points", metric="top1")


@pytest.fixture(autouse=True)
def no_timing(monkeypatch):
    monkeypatch.setattr(subject_module, "race", told_race)


@pytest.fixture
def model():
    return small()


def arrays(count=120, channels=3, classes=5, training=0):
    images = torch.randint(0, 256, (count, channels, 8, 8)).byte()
    train = torch.randint(0, 256, (training, channels, 8, 8)).byte() if training else None
    return Arrays.of_images(images, labels=torch.arange(count) % classes, train_images=train)


def prepared(network, data, budget=AGREEMENT, **objective):
    config = SearchConfig(budget=budget, objective=Objective(device="cpu", **objective))
    return Subject.prepare(network, data, config, {})


def test_the_model_is_left_as_it_is(model):
    model.train()
    before = copy.deepcopy(model.state_dict())
    subject = prepared(model, arrays())
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(weight.requires_grad for weight in model.parameters())
    assert not subject.dense.training
    assert subject.dense is not model


def test_the_baseline_is_the_accuracy_on_the_search_split(model):
    data = arrays()
    subject = prepared(model, data, TOP1)
    right = sum(
        int(model.eval()(subject.search.inputs(i, i + 1)).argmax()) == int(label)
        for i, label in enumerate(subject.search._labels)
    )
    assert subject.baseline.value == pytest.approx(100 * right / len(subject.search))
    assert subject.baseline.samples == len(subject.search) == round(0.4 * 96)
    assert subject.baseline.parameters == sum(weight.numel() for weight in model.parameters())
    # by hand: 3 -> 8 at 8 x 8, 8 -> 12 and 12 -> 16 at 4 x 4, 16 -> 5
    assert subject.baseline.macs == 64 * 8 * 27 + 16 * 12 * 72 + 16 * 16 * 108 + 80


def test_the_timed_input_has_the_batch_of_the_objective_however_few_images_there_are(model):
    subject = prepared(model, arrays(40), batch=32)
    assert len(torch.cat(subject.calibration)) == 8
    assert subject.example.shape == (32, 3, 8, 8)


def test_calibration_comes_from_the_training_images_where_there_are_some(model):
    data = arrays(100, training=600)
    subject = prepared(model, data)
    images = torch.cat(subject.calibration)
    assert len(images) == 512
    known = {row.numpy().tobytes() for row in data.batch(torch.arange(600), train=True)}
    assert all(row.numpy().tobytes() in known for row in images)


def test_an_assembled_network_is_factorised_in_the_layers_of_the_plan_alone(model):
    subject = prepared(model, arrays())
    plan = Plan({"conv3": Choice("svd", (8,))})
    before = copy.deepcopy(subject.dense.state_dict())
    found = subject.assemble(plan)
    assert is_factorized(found.conv3)
    assert not found.training
    assert type(found.conv2) is nn.Conv2d
    x = subject.example
    assert not torch.equal(found(x), subject.dense(x))
    assert all(torch.equal(value, before[key]) for key, value in subject.dense.state_dict().items())
    shared = {w.data_ptr() for w in found.parameters()} & {
        w.data_ptr() for w in subject.dense.parameters()
    }
    assert not shared


def test_the_same_plan_gives_the_same_network(model):
    plan = Plan({"conv2": Choice("svd", (4,)), "conv3": Choice("svd", (8,))})
    first, second = (prepared(model, arrays_of()).assemble(plan) for arrays_of in (fixed, fixed))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_network_assembled_last_is_not_assembled_again(model):
    subject = prepared(model, arrays())
    plan, other = (Plan({"conv3": Choice("svd", (rank,))}) for rank in (8, 4))
    first = subject.assemble(plan)
    assert subject.assemble(Plan(dict(plan))) is first
    assert subject.assemble(other) is not first
    again = subject.assemble(plan)
    assert again is not first
    x = subject.example
    assert torch.equal(again(x), first(x))


DISTIL = Recovery(method="distil", max_epochs=1)
ONE, OTHER, THIRD = (Plan({"conv3": Choice("svd", (rank,))}) for rank in (8, 4, 2))


@pytest.fixture
def distilled(model):
    config = SearchConfig(budget=AGREEMENT, objective=Objective(device="cpu"), recovery=DISTIL)
    return Subject.prepare(model, arrays(300, training=200), config, {})


def test_what_is_assembled_is_recovered_where_that_is_ordered(distilled):
    told = []
    repaired = copy.deepcopy(distilled.repaired(ONE).state_dict())
    found = distilled.assemble(ONE, lambda *said: told.append(said))
    recovered = distilled.recovered(ONE)
    assert recovered.method == "distil"
    assert recovered.after < recovered.before
    assert told[-1][1].startswith("recovery: epoch 1, ")
    assert not torch.equal(found.conv3[0].weight, repaired["conv3.reduce.weight"])
    again = distilled.repaired(ONE).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in repaired.items())


def test_pictures_to_learn_from_are_varied_as_ordered(model):
    data = arrays(training=80)

    def first(**changes):
        recovery = replace(DISTIL, **changes)
        config = SearchConfig(
            budget=AGREEMENT, objective=Objective(device="cpu"), recovery=recovery
        )
        material = Subject.prepare(model, data, config, {}).material
        return next(material.examples(torch.Generator().manual_seed(0))).inputs

    found, plain = first(augment=Augmentation(flip=True)), first()
    pairs = list(zip(found, plain, strict=True))
    mirrored = [torch.equal(one, other.flip(2)) for one, other in pairs]
    assert any(mirrored)
    assert all(m or torch.equal(*pair) for m, pair in zip(mirrored, pairs, strict=True))


def test_nothing_is_recovered_where_nothing_is_ordered(model):
    subject = prepared(model, arrays(training=40))
    subject.assemble(ONE)
    assert subject.recovered(ONE) is None
    assert subject.material is None


def test_recovered_networks_are_kept_as_far_as_they_fit(distilled, monkeypatch):
    first = distilled.assemble(ONE)
    other = distilled.assemble(OTHER)
    assert distilled.assemble(ONE) is first
    assert distilled.assemble(OTHER) is other
    size = sum(value.nbytes for value in first.state_dict().values())
    distilled._assembled._most_bytes = 2 * size
    third = distilled.assemble(THIRD)
    assert distilled.assemble(OTHER) is other
    assert distilled.assemble(THIRD) is third
    before = distilled.recovered(ONE)
    assert distilled.assemble(ONE) is not first  # which was the oldest, and is made anew
    assert distilled.recovered(ONE) is not before


def test_recovery_learns_from_the_training_samples_or_those_of_the_calibration(model, distilled):
    assert distilled.material.is_training
    assert len(distilled.material) + distilled.material.left_out == 200
    config = SearchConfig(budget=AGREEMENT, objective=Objective(device="cpu"), recovery=DISTIL)
    data = arrays(300)
    subject = Subject.prepare(model, data, config, {})
    assert not subject.material.is_training
    assert len(subject.material) + subject.material.left_out == 60
    calibration = {row.numpy().tobytes() for row in torch.cat(subject.calibration)}
    seen = [*subject.material.judging(), next(subject.material.examples(torch.Generator()))]
    for example in seen:
        assert all(row.contiguous().numpy().tobytes() in calibration for row in example.inputs)


def test_fine_tuning_without_labels_to_learn_from_is_refused(model):
    config = SearchConfig(
        budget=AGREEMENT, objective=Objective(device="cpu"), recovery=Recovery(method="finetune")
    )
    with pytest.raises(ConfigError, match="without train_labels: add them, or choose"):
        Subject.prepare(model, arrays(training=40), config, {})


def fixed():
    torch.manual_seed(5)
    return arrays()


def test_what_was_settled_is_kept_and_the_rest_found_again(model):
    subject = prepared(model, arrays())
    kept, other = Choice("svd", (4,)), Choice("svd", (8,))
    subject.factors.collect(["conv3"])
    wanted = {choice: subject.factors.of("conv3", choice) for choice in (kept, other)}
    subject.factors.settle("conv3", [kept])
    assert subject.factors.known("conv3", kept)
    assert not subject.factors.known("conv3", other)
    assert subject.factors.metric("conv3") is None
    subject.factors.collect(["conv3"])
    again = subject.factors.of("conv3", other)
    for stage, factor in wanted[other].items():
        torch.testing.assert_close(again[stage], factor)


def test_labels_beyond_the_outputs_are_refused(model):
    with pytest.raises(DataError, match="label 6 came, the network has 5 outputs"):
        prepared(model, arrays(classes=7), TOP1)
    prepared(model, arrays(classes=7), AGREEMENT)  # which looks at no label


def test_images_that_the_network_does_not_take_are_refused(model):
    with pytest.raises(DataError, match=r"refuses images of shape \(1, 8, 8\)"):
        prepared(model, arrays(channels=1))


def test_a_network_that_answers_nonsense_is_refused(model):
    with torch.no_grad():
        model.classify.bias[0] = float("nan")
    with pytest.raises(DataError, match="not finite"):
        prepared(model, arrays())


@pytest.mark.parametrize(
    ("tail", "budget", "message"),
    [
        (nn.Unflatten(1, (5, 1)), TOP1, r"\(N, classes\) was wanted for top1"),
        (nn.LSTM(5, 5), AGREEMENT, "answers tuple, a tensor was wanted"),
    ],
)
def test_answers_without_classes_are_refused(model, tail, budget, message):
    with pytest.raises(DataError, match=message):
        prepared(nn.Sequential(model, tail), arrays(), budget)


def test_mse_takes_answers_of_any_shape(model):
    budget = Budget(max_loss=0.1, unit="points", metric="mse")
    subject = prepared(nn.Sequential(model, nn.Unflatten(1, (5, 1))), arrays(), budget)
    assert subject.baseline.value == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_without_a_gpu_is_refused_and_auto_is_the_cpu():
    with pytest.raises(DeviceError, match="choose cpu or auto"):
        find_device("cuda")
    assert find_device("auto") == torch.device("cpu")


def limited(model, max_memory_bytes):
    config = SearchConfig(
        budget=AGREEMENT,
        objective=Objective(device="cpu"),
        limits=Limits(max_memory_bytes=max_memory_bytes),
    )
    subject = Subject.prepare(model, fixed(), config, {})
    subject.factors.collect(["conv3"])
    return subject


def test_a_layer_over_the_memory_is_decomposed_in_a_coarser_norm_and_judged_in_the_finest(
    model, monkeypatch
):
    free, choice = limited(model, 2**30), Choice("svd", (8,))
    shape, weight = free.shape("conv3"), free.dense.conv3.weight.double()
    finest = free.factors.metric("conv3")
    by_mode = Metric(ModeMoments.of(finest.inputs, (12, 3, 3)), finest.outputs)
    wanted = {
        metric: METHODS["svd"].decompose(shape, weight, metric).factors((8,))["reduce"].float()
        for metric in (finest, by_mode)
    }
    torch.testing.assert_close(free.factors.of("conv3", choice)["reduce"], wanted[finest])

    def sized(shape, method, ranks, *, data_aware):
        return 2**31 if data_aware else 2**20

    monkeypatch.setattr("search.factors.peak_bytes", sized)
    tight = limited(model, 2**30)
    torch.testing.assert_close(tight.factors.of("conv3", choice)["reduce"], wanted[by_mode])
    assert not torch.allclose(wanted[finest], wanted[by_mode])
    assert tight.factors.error("conv3", choice) > free.factors.error("conv3", choice)


def test_coordinates_over_the_memory_leave_the_plain_norm(model, monkeypatch):
    def sized(shape, metric):
        return 0 if metric is None else 2**31

    monkeypatch.setattr("search.factors.coordinate_bytes", sized)
    subject = limited(model, 2**30)
    plain = METHODS["svd"].decompose(
        subject.shape("conv3"), subject.dense.conv3.weight.double(), None
    )
    found = subject.factors.of("conv3", Choice("svd", (8,)))["reduce"]
    torch.testing.assert_close(found, plain.factors((8,))["reduce"].float())


def test_a_decomposition_that_never_fits_is_an_error_with_both_figures(model):
    with pytest.raises(
        CompressError, match=r"needs [\d,]+ bytes, limits.max_memory_bytes is 1,000"
    ):
        limited(model, 1000).factors.of("conv3", Choice("svd", (8,)))


def test_the_error_of_a_choice_is_that_of_its_factors(model):
    subject = prepared(model, arrays())
    subject.factors.collect(["conv3"])
    shape, weight = subject.shape("conv3"), subject.dense.conv3.weight
    for choice in (
        Choice("svd", (8,)),
        Choice("tucker2", (8, 8)),
        Choice("spatial_svd", (8,)),
        TRAIN,
    ):
        stages = METHODS[choice.method].stages(shape, choice.ranks)
        found = dense_weight(shape, stages, subject.factors.of("conv3", choice))
        expected = MetricError(weight, subject.factors.metric("conv3")).of(found)
        # the factors are float32
        assert subject.factors.error("conv3", choice) == pytest.approx(expected, rel=1e-4, abs=1e-9)


def norms(network):
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def test_norms_are_folded_in_both_networks_that_race(model, monkeypatch):
    raced = []

    def race(networks, *arguments, **more):
        raced.extend(networks.values())
        return told_race(networks, *arguments, **more)

    monkeypatch.setattr(subject_module, "race", race)
    subject = prepared(model, arrays(), fold_norms=True)
    found = subject.assemble(Plan({"conv3": Choice("svd", (8,))}))
    assert raced == [subject.opponent]
    assert subject.not_simplified is None
    assert len(norms(subject.dense)) == 3  # layers are factorised as they came
    assert not norms(subject.opponent)
    assert not norms(found)
    x = subject.example
    torch.testing.assert_close(subject.opponent(x), subject.dense(x), rtol=1e-4, atol=1e-5)
    assert not torch.equal(found(x), subject.opponent(x))


def test_norms_stay_where_nothing_else_is_ordered(model):
    subject = prepared(model, arrays())
    assert subject.opponent is subject.dense
    assert len(norms(subject.assemble(Plan({"conv3": Choice("svd", (8,))})))) == 3


def test_what_cannot_be_traced_races_as_it_came(model):
    class Deciding(nn.Sequential):
        def forward(self, x):
            return super().forward(x) if x.mean() > -1e9 else x

    network = Deciding(*model.children()).eval()
    subject = prepared(network, arrays(), fold_norms=True)
    assert subject.not_simplified.startswith("it cannot be traced")
    assert subject.opponent is subject.dense
    assert len(norms(subject.assemble(Plan({"6": Choice("svd", (8,))})))) == 3


def test_linear_neighbours_are_multiplied_out_in_both():
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 24), nn.Linear(24, 5)).eval()
    data = Arrays.of_images(torch.randint(0, 256, (120, 3, 4, 4)).byte())
    subject = prepared(network, data)
    found = subject.assemble(Plan({"1": Choice("svd", (2,))}))
    assert [tuple(w.shape) for w in subject.opponent.parameters() if w.ndim > 1] == [(5, 48)]
    assert [tuple(w.shape) for w in found.parameters() if w.ndim > 1] == [(2, 48), (5, 2)]
