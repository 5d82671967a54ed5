"""One small network of each family in torchvision, factorised in all its narrower layers.

`python -m benchmarks.zoo` does the same with all of them.
"""

import pytest

from benchmarks.zoo import Finding, examine

NETWORKS = (
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "inception_v3",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "resnet18",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
)
COMPILED = "resnet18"

SOUND = {
    "network": "sound",
    "side": 32,
    "parameters": 9,
    "layers": 2,
    "refused": 1,
    "unaccounted": 0,
    "factorised": 1,
    "full_rank_difference": 1e-12,
    "channels_last_difference": 1e-12,
    "compile_difference": 1e-12,
    "parameters_as_said": True,
    "macs_as_said": True,
    "learns": True,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_the_same_at_full_rank_and_what_was_said_at_half(name):
    finding = examine(name, compiled=name == COMPILED)
    assert finding.fault is None, finding
    assert (finding.compile_difference is not None) == (name == COMPILED)


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"full_rank_difference": 1e-3}, "full rank"),
        ({"full_rank_difference": float("nan")}, "full rank"),
        ({"channels_last_difference": 1e-3}, "channels_last"),
        ({"compile_difference": 1e-3}, "compile"),
        ({"unaccounted": 1}, "no account"),
        ({"factorised": 0}, "nothing was factorised"),
        ({"parameters_as_said": False}, "parameters"),
        ({"macs_as_said": False}, "MACs"),
        ({"learns": False}, "gradient"),
    ],
)
def test_a_finding_tells_its_fault(wrong, fault):
    assert Finding(**SOUND).fault is None
    assert fault in Finding(**(SOUND | wrong)).fault
