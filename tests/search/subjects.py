"""Networks whose answers are written down, and times that follow from the size of a network."""

import torch
from torch import nn

from compress.load import build_sequential
from compress.plan import Plan
from search.config import Objective, SearchConfig
from search.data.arrays import Arrays
from search.measurement import Race, Ratio, Timing
from search.runtimes.eager import Eager
from search.samples import Samples

CPU = torch.device("cpu")


class Lookup(nn.Module):
    """Answers image number i with row i of `answers`; `time_share` is what a race will say."""

    def __init__(self, answers, time_share=1.0):
        super().__init__()
        self.register_buffer("answers", answers)
        self.time_share = time_share
        self.asked = []

    def forward(self, images):
        numbers = images[:, 0, 0, 0].long()
        self.asked += numbers.tolist()
        return self.answers[numbers]


def numbered(count, labels=None):
    """Images that hold their own number."""
    images = torch.arange(count, dtype=torch.float32).reshape(-1, 1, 1, 1)
    return Arrays.of_images(images, labels)


def right_and_wrong(labels, wrong, classes=4):
    """(N, classes) answers that are right but for the samples `wrong`."""
    said = labels.clone()
    wrong = torch.as_tensor(list(wrong), dtype=torch.long)
    said[wrong] = (labels[wrong] + 1) % classes
    return nn.functional.one_hot(said, classes).float()


def samples(labels, dense):
    """All images as one split."""
    return Samples(numbered(len(labels), labels), torch.arange(len(labels)), dense, CPU)


class WrittenSubject:
    """A subject whose candidates are given, plan by plan, instead of assembled."""

    def __init__(self, config: SearchConfig, labels, dense_wrong=()):
        self.config = config
        self.labels = labels
        self.device = CPU
        self.dense = Lookup(right_and_wrong(labels, dense_wrong))
        self.opponent = self.dense
        self.not_simplified = None
        self.material = None
        self.search = samples(labels, self.dense)
        self.confirmation = samples(labels, self.dense)
        self.calibration = [torch.zeros(1, 1, 1, 1)]
        self.runtime = Eager()
        self.networks: dict[str, nn.Module] = {}
        self.assembled: list[str] = []

    def add(self, plan: Plan, wrong=(), time_share=0.5):
        answers = right_and_wrong(self.labels, wrong)
        self.networks[plan.to_json()] = Lookup(answers, time_share)

    def race(self, candidates, **circumstances):
        return told_race({"dense": self.opponent, **candidates}, None, runtime=self.runtime)

    def narrowed(self, widths):
        return self

    def recovered(self, plan: Plan):
        return None

    def assemble(self, plan: Plan, report=None, **limits):
        self.assembled.append(plan.to_json())
        found = self.networks[plan.to_json()]
        if isinstance(found, Exception):
            raise found
        return found

    @property
    def factors(self):
        return KnownFactors()


class KnownFactors:
    """Factors of which none is ever missing."""

    def collect(self, names):
        pass

    def known(self, name, choice):
        return True


def told_race(networks, example, *, runtime, seconds=1.0, layouts=None, seed=0):
    """A race that takes no time: each network takes its `time_share`, give or take 1 %."""
    shares = {name: getattr(network, "time_share", 1.0) for name, network in networks.items()}
    return Race(
        timings={name: Timing(10 * s, 9 * s, 11 * s, 7) for name, s in shares.items()},
        ratios={
            name: Ratio(s, 0.99 * s, 1.01 * s) for name, s in shares.items() if name != "dense"
        },
        layouts=dict.fromkeys(networks, "contiguous"),
        runtime=runtime.name,
        rounds=7,
    )


def weighed_race(networks, example, *, runtime, seconds=1.0, layouts=None, seed=0):
    """A race that takes no time: a network takes as long as it has parameters."""
    sizes = {name: size_of(network) for name, network in networks.items()}
    for name, network in networks.items():
        network.time_share = sizes[name] / sizes["dense"]
    return told_race(networks, example, runtime=runtime)


def weighed_layers(layers, example, *, runtime, layout, seconds=1.0, seed=0):
    """Milliseconds of each layer, as many as it has parameters."""
    return {name: float(size_of(layer)) for name, layer in layers.items()}


def size_of(network):
    return sum(weight.numel() for weight in network.parameters())


def config(budget, **more):
    return SearchConfig(budget=budget, objective=Objective(device="cpu"), **more)


def _conv(name, width_in, width_out, **arguments):
    settings = {"in_channels": width_in, "out_channels": width_out, "kernel_size": 3, **arguments}
    return [
        [f"conv{name}", "Conv2d", settings],
        [f"norm{name}", "BatchNorm2d", {"num_features": width_out}],
        [f"relu{name}", "ReLU", {}],
    ]


SMALL_ROWS = [
    *_conv("1", 3, 8, padding=1, bias=False),
    *_conv("2", 8, 12, padding=1, stride=2, bias=False),
    *_conv("3", 12, 16, padding="same"),
    ["pool", "AdaptiveAvgPool2d", {"output_size": 1}],
    ["flatten", "Flatten", {}],
    ["classify", "Linear", {"in_features": 16, "out_features": 5}],
]
SMALL_ARCHITECTURE = {"registry": "examples", "name": "small", "rows": SMALL_ROWS}


def small():
    """(N, 3, 8, 8) -> (N, 5), with batch norms that have seen something; the same every time."""
    torch.manual_seed(0)
    model = build_sequential(SMALL_ROWS)
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(32, 3, 8, 8))
    return model.eval()
