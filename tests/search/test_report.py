import pytest

from search.report import markdown

RESULT = {
    "loss": {
        "value": 0.25,
        "upper": 0.42,
        "allowed": 0.5,
        "unit": "points",
        "metric": "top1",
        "samples": 6000,
        "worse": 40,
        "better": 25,
    },
    "latency_ms": {"p50_ms": 1.25, "p10_ms": 1.2, "p90_ms": 1.4, "n": 300},
    "dense_latency_ms": {"p50_ms": 4.0, "p10_ms": 3.9, "p90_ms": 4.4, "n": 300},
    "cost": 0.3125,
    "speedup": 3.2,
    "speedup_low": 3.1,
    "speedup_high": 3.3,
    "layout": "channels_last",
    "recovery": None,
    "parameters": 250_000,
    "macs": 10_000_000,
}


def document(**changes):
    found = {
        "verdict": "budget_met",
        "sentence": "Loses 0.25 points.",
        "nearest_max_loss": None,
        "stopped_by": None,
        "budget": {"max_loss": 0.5, "unit": "points", "metric": "top1", "confidence": 0.95},
        "search": {"strategy": "estimation"},
        "recovery": None,
        "objective": {
            "minimise": "latency",
            "weights": {"latency": 1.0, "macs": 0.0, "parameters": 0.0},
            "device": "cpu",
            "batch": 8,
            "threads": 1,
            "fold_norms": False,
        },
        "circumstances": {
            "device": "cpu",
            "name": "A Processor",
            "threads": 1,
            "runtime": "eager",
            "allocator": "freed memory kept",
            "dtype": "float32",
            "versions": {"torch": "2.15.0"},
        },
        "not_simplified": None,
        "splits": {"calibration": 512, "search": 4000, "confirmation": 6000},
        "dense": {
            "metric": "top1",
            "value": 98.75,
            "samples": 4000,
            "latency_ms": {"p50_ms": 4.1, "p10_ms": 4.0, "p90_ms": 4.5, "n": 100},
            "parameters": 1_000_000,
            "macs": 40_000_000,
        },
        "result": RESULT,
        "layers": [
            {
                "name": "conv1",
                "method": "tucker2",
                "ranks": [32, 16],
                "predicted_error": 0.034,
                "dense_latency_ms": 2.0,
                "latency_ms": 0.5,
                "dense_parameters": 9000,
                "parameters": 1800,
                "choices": 7,
            },
            {
                "name": "conv2",
                "method": None,
                "ranks": None,
                "predicted_error": 0.0,
                "dense_latency_ms": 1.0,
                "latency_ms": 1.0,
                "dense_parameters": 5000,
                "parameters": 5000,
                "choices": 3,
            },
        ],
        "kept_dense": {"norm1": "BatchNorm2d: no", "norm2": "BatchNorm2d: no", "fc": "too small"},
        "tested": [],
        "front": [
            {
                "plan": {"version": 1, "layers": {}},
                "loss": 0.0,
                "within": True,
                "cost": 1.0,
                "speedup": 1.0,
                "parameter_share": 1.0,
                "mac_share": 1.0,
            },
            {
                "plan": {"version": 1, "layers": {"conv1": ["tucker2", 32, 16]}},
                "loss": 0.75,
                "within": False,
                "cost": 0.25,
                "speedup": 4.0,
                "parameter_share": 0.125,
                "mac_share": 0.375,
            },
        ],
        "evaluations": 9,
        "failed": 1,
        "search_seconds": 12.3,
        "samples_saved": 0.25,
        "surrogate": {"candidates": 7, "loss": 0.9, "latency": None},
        "widths": None,
        "limit": {"speedup": 8.0, "achieved": 0.75},
    }
    return found | changes


def lines(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def test_the_verdict_and_the_promise_come_before_every_figure():
    text = markdown(document())
    assert text.startswith("# The promise is kept\n")
    promise = "Promise: lose at most 0.5 points of top1, with 95 % confidence."
    assert (
        text.index(promise) < text.index("Loses 0.25 points.") < text.index("## Before and after")
    )


@pytest.mark.parametrize(
    ("verdict", "title"),
    [
        ("budget_met", "# The promise is kept"),
        ("budget_missed", "# The promise is not kept"),
        ("no_gain", "# Nothing gained: the dense network stays"),
    ],
)
def test_every_verdict_has_its_title(verdict, title):
    assert markdown(document(verdict=verdict)).splitlines()[0] == title


def test_dense_and_result_stand_side_by_side():
    text = markdown(document())
    assert "4.000 ms (3.900 to 4.400) | 1.250 ms (1.200 to 1.400)" in text
    assert "3.20 (3.10 to 3.30)" in text
    assert "| parameters | 1,000,000 | 250,000 (25.0 %) |" in text
    assert "0.25, at most 0.42" in text
    assert "40 got worse, 25 better" in text


def test_each_layer_has_a_row_and_layers_kept_for_one_reason_share_theirs():
    text = markdown(document())
    assert lines(text, "| conv1") == [
        "| conv1 | tucker2 32x16 | 0.034 | 2.000 | 0.500 | 1,800 of 9,000 |  |"
    ]
    assert "none of its 3 choices" in lines(text, "| conv2")[0]
    assert len(lines(text, "| norm1, norm2 | dense |")) == 1
    assert "too small" in lines(text, "| fc | dense |")[0]


def test_without_a_result_the_dense_network_is_described_alone():
    text = markdown(document(verdict="no_gain", result=None))
    assert "| parameters | 1,000,000 | 1,000,000 |" in text
    assert "speed-up (95" not in text
    assert "channels_last" not in text


def test_the_layout_that_the_times_hold_for_is_in_the_code():
    assert "memory_format=torch.channels_last" in markdown(document())
    contiguous = document(result=RESULT | {"layout": "contiguous"})
    assert "channels_last" not in markdown(contiguous)


def test_what_the_speed_up_holds_for_is_said():
    text = markdown(document())
    assert "A Processor (cpu), batch 8, 1 thread, float32, torch eager mode, " in text
    assert "allocator: freed memory kept (torch 2.15.0)" in text


def test_norms_that_were_folded_are_named_or_why_not():
    objective = document()["objective"] | {"fold_norms": True}
    assert "In both, batch norms were folded" in markdown(document(objective=objective))
    refused = markdown(document(objective=objective, not_simplified="it cannot be traced"))
    assert "Batch norms were folded in neither: it cannot be traced." in refused
    assert "folded" not in markdown(document())


@pytest.mark.parametrize(
    ("runtime", "said", "code"),
    [
        ("compile", "float32, torch.compile, ", "model = torch.compile(model)"),
        ("cuda_graph", "float32, a CUDA graph, ", "graph.replay()"),
        ("onnxruntime", "float32, onnxruntime, ", 'InferenceSession("model.onnx", options)'),
        ("openvino", "float32, OpenVINO, ", 'compile_model("model.onnx", "CPU", settings)'),
    ],
)
def test_the_code_is_that_of_the_runtime_that_was_measured(runtime, said, code):
    found = document()
    assert code not in markdown(found)
    found["circumstances"] |= {"runtime": runtime, "threads": 3}
    text = markdown(found)
    assert said in text
    assert code in text
    assert ("= 3" in text or '"INFERENCE_NUM_THREADS": 3' in text) == (
        runtime in ("onnxruntime", "openvino")
    )
    for block in text.split("```python")[1:]:
        compile(block.partition("```")[0], "report.md", "exec")


def test_a_promise_without_confidence_claims_none():
    budget = {"max_loss": 2, "unit": "relative_percent", "metric": "loss", "confidence": None}
    text = markdown(document(budget=budget))
    assert "lose at most 2 percent of the dense network's own value of loss." in text


def test_a_limit_that_ended_the_search_is_named():
    assert "`max_seconds`" in markdown(document(stopped_by="max_seconds"))


def test_every_table_has_as_many_cells_in_each_row_as_in_its_head():
    text = markdown(document())
    width = None
    for line in text.splitlines():
        if not line.startswith("|"):
            width = None
            continue
        width = width or line.count("|")
        assert line.count("|") == width


def test_the_limit_and_the_guide_are_told():
    text = markdown(document())
    assert (
        "8.00 times could be reached (Amdahl); of the time that they take, 75 % was saved" in text
    )
    assert "measured over 7 candidates: 0.90 for the loss." in text
    assert "Stopping early spared 25 %" in text


def test_a_guide_that_says_nothing_is_left_out():
    silent = {"candidates": 1, "loss": None, "latency": None}
    text = markdown(document(surrogate=silent, limit={"speedup": None, "achieved": None}))
    assert "Amdahl" not in text
    assert "Rank correlation" not in text


ORDERED = {
    "method": "distil",
    "max_seconds": 30.0,
    "samples": 59_000,
    "left_out": 1000,
    "from_training": True,
    "augment": {"flip": False, "shift": 0},
}
FOUND = {
    "loss_before": 3.5,
    "method": "distil",
    "epochs": 1.25,
    "seconds": 29.6,
    "cut_short": False,
}


def test_the_report_says_what_recovery_gave():
    text = markdown(document(recovery=ORDERED, result=RESULT | {"recovery": FOUND}))
    assert (
        "trained for 30 s at most before its loss was measured, on the dense network's answers to "
        "59,000 training samples; 1,000 others were left out"
    ) in text
    assert (
        "Without that the loss of top1 (points) of the result is 3.5, with it 0.25: 1.25 epochs "
        "in 30 s."
    ) in text
    found = FOUND | {"loss_before": None}
    tuned = ORDERED | {"method": "finetune", "from_training": False}
    text = markdown(document(recovery=tuned, result=RESULT | {"recovery": found}))
    assert "on the labels and the dense network's answers to 59,000 calibration samples" in text
    assert "of the result cannot be computed, with it 0.25" in text
    assert "cut this training short" not in text


@pytest.mark.parametrize(
    ("flip", "shift", "said"),
    [
        (True, 0, "it was mirrored every second time."),
        (False, 3, "it was moved by up to 3 pixels."),
        (True, 3, "it was moved by up to 3 pixels and mirrored every second time."),
    ],
)
def test_the_report_says_how_pictures_were_varied(flip, shift, said):
    ordered = ORDERED | {"augment": {"flip": flip, "shift": shift}}
    assert said in markdown(document(recovery=ordered))
    assert "Each time a picture" not in markdown(document(recovery=ORDERED))


def test_the_report_says_that_a_training_was_cut_short():
    cut = FOUND | {"cut_short": True}
    text = markdown(document(recovery=ORDERED, result=RESULT | {"recovery": cut}))
    assert "The limit of the job cut this training short" in text


def test_the_report_says_nothing_of_a_recovery_that_was_not_ordered_or_gave_no_result():
    assert "trained for" not in markdown(document())
    text = markdown(document(recovery=ORDERED, result=None))
    assert "trained for" in text
    assert "Without that" not in text


@pytest.mark.parametrize(
    ("minimise", "weights", "said"),
    [
        ("latency", {"latency": 1.0, "macs": 0.0, "parameters": 0.0}, "time"),
        ("macs", {"latency": 0.0, "macs": 1.0, "parameters": 0.0}, "MACs"),
        (
            "weighted",
            {"latency": 0.75, "macs": 0.25, "parameters": 0.0},
            "weighted cost, 0.75 of latency, 0.25 of macs",
        ),
    ],
)
def test_what_was_minimised_is_said_beside_the_speed(minimise, weights, said):
    objective = document()["objective"] | {"minimise": minimise, "weights": weights}
    text = markdown(document(objective=objective, result=RESULT | {"cost": 0.875}))
    assert f"Minimised: {said}." in text
    (row,) = lines(text, "| minimised: ")
    assert row.endswith("| 1 | 0.875 |")
    assert lines(text, "| speed-up (95 % interval) | 1 | 3.20")


def test_the_front_is_a_table_with_dense_and_what_the_budget_forbids():
    text = markdown(document())
    assert "| 0 | yes | 100.0 % | 1.00 | 100.0 % | 100.0 % |" in text
    assert "| 0.75 | no | 25.0 % | 4.00 | 12.5 % | 37.5 % |" in text
    assert "no other beats in loss and time" in text


def test_widths_are_told_group_by_group_with_what_stays_whole():
    widths = {
        "tried": 3,
        "groups": [{"name": "conv1", "reader": "conv2", "channels": 32, "kept": 12}],
        "kept_whole": {"classify": "its outputs are the network's answers"},
    }
    report = markdown(document() | {"widths": widths})
    assert "| conv1 | 32 | 12 |" in report
    assert "tried at 3 widths" in report
    assert "- classify: its outputs are the network's answers" in report
    assert "## Widths" not in markdown(document())
