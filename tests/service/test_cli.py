"""The command line against the real application; the tests play the worker."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import get_args

import httpx2
import numpy as np
import pytest
import torch
import typer
from fastapi import FastAPI

from search import local
from search.config import StrategyConfig
from service import cli
from service.commands import compress as compress_module
from service.commands import connection, watching
from service.commands.compress import STRATEGIES
from service.settings import Settings
from service.store import artifacts, lease, progress
from service.store.blobs import Blobs
from service.store.tables import JobState
from tests.compress.programs import write
from tests.service.conftest import TOKEN, claim
from tests.service.files import arrays_npz, weights
from tests.service.live import serving

TIMING = {"p50_ms": 2.0, "p10_ms": 1.9, "p90_ms": 2.2, "n": 100}
BEST = {
    "loss": {
        "value": 0.25,
        "upper": 0.75,
        "allowed": 2.0,
        "unit": "points",
        "metric": "top1",
        "samples": 538,
        "worse": 3,
        "better": 1,
    },
    "latency_ms": TIMING,
    "dense_latency_ms": TIMING | {"p50_ms": 5.0},
    "cost": 0.4,
    "speedup": 2.5,
    "speedup_low": 2.4,
    "speedup_high": 2.6,
    "parameters": 250_000,
    "macs": 3_000_000,
}
BASELINE = {"metric": "top1", "value": 98.5, "parameters": 1_000_000, "macs": 9_000_000}


@pytest.fixture
def url(app: FastAPI, monkeypatch) -> Iterator[str]:
    """The service, as the environment names it."""
    with serving(app) as url:
        monkeypatch.setenv("RANKSEARCH_URL", url)
        monkeypatch.setenv("RANKSEARCH_TOKEN", TOKEN)
        yield url


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch, capsys) -> Run:
    """A command line; its exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["ranksearch", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code
        assert isinstance(code, int)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def order(tmp_path) -> list[str]:
    """The arguments of `compress` with files to send."""
    model, data = tmp_path / "model.safetensors", tmp_path / "data.npz"
    model.write_bytes(weights())
    data.write_bytes(arrays_npz())
    return ["digits_cnn", "--weights", str(model), "--data", str(data), "--max-loss", "2pp"]


@pytest.fixture
def job_id(url, run, order) -> str:
    return run("compress", *order, "--no-wait")[1].strip()


Work = Callable[..., None]


@pytest.fixture
def work(app: FastAPI, settings: Settings) -> Iterator[Work]:
    """A worker that finds something in the next job, and ends it as it is told."""
    threads = []

    def work(state: JobState, **columns: object) -> None:
        threads.append(threading.Thread(target=_find, args=(app, settings, state, columns)))
        threads[-1].start()

    yield work
    for thread in threads:
        thread.join()


def _find(app: FastAPI, settings: Settings, state: JobState, columns: dict) -> None:
    sessions, blobs = app.state.sessions, Blobs(settings.blobs)
    held = None
    while held is None:
        with sessions.begin() as session:
            held = lease.claim(session, "a worker", 60)
    files = []
    for name, media_type in (("load.py", "text/x-python"), ("result.zip", "application/zip")):
        with blobs.writer() as writer:
            writer.write(b"content")
            files.append((name, media_type, writer.commit(), 7))
    with sessions.begin() as session:
        progress.baseline(session, held, BASELINE)
        progress.best(session, held, BEST)
        artifacts.publish(session, held, files)
        lease.finish(session, held, state, **columns)


@pytest.mark.parametrize("max_loss", ["2", "0.5%", "0.5 points", "-1pp", "pp", "nanpp", "1e-1pp"])
def test_a_loss_without_its_unit_is_a_usage_error_that_says_so(run, order, max_loss):
    code, out, err = run("compress", *order[:-1], f"--max-loss={max_loss}")
    assert (code, out) == (2, "")
    assert "0.5pp for half a percentage point" in err
    assert "0.5%rel" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--max-loss", "101pp"], "a number from 0 to 100 was wanted"),
        (["--max-loss", "1%rel", "--metric", "mse"], "give the budget in points"),
        (["--confidence", "95"], "above 0.5 and up to 0.999"),
        (["--confidence", "sure"], "above 0.5 and up to 0.999"),
        (["--data", "imagenet"], "no file and none of digits, mnist, cifar10"),
        (["--weights", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--strategy", "luck"], "luck"),
        (["--minimise", "size"], "size"),
        (["--minimise", "weighted"], "weighted came without weights"),
        (["--weight", "macs=1"], "choose minimise weighted"),
        (["--minimise", "weighted", "--weight", "time=1"], "'time=1' came"),
        (["--method", "svd", "--method", "cp9"], "--method cp9 came"),
        (["--modes", "lstm.weight_hh_l0=2x2"], "WEIGHT=INPUTS:OUTPUTS was wanted"),
        (["--recover", "distil", "--augment", "turn"], "flip, shift=PIXELS or both"),
        (["--augment", "flip"], "choose recovery distil"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_a_usage_error(url, run, order, arguments, said):
    code, out, err = run("compress", *order, *arguments)
    assert (code, out) == (2, "")
    assert said in " ".join(err.split())


def test_an_order_arrives_as_it_was_given(url, run, order):
    options = ["--confidence", "none", "--strategy", "genetic", "--batch", 8, "--threads", 2]
    options += ["--recover", "finetune", "--recover-seconds", 12, "--augment", "flip,shift=2"]
    options += ["--minimise", "weighted", "--weight", "latency=0.7", "--weight", "macs=0.3"]
    options += ["--method", "kcp", "--method", "svd", "--modes", "lstm.weight_hh_l0=2x4:8x4"]
    code, out, _ = run(
        *("compress", *order[:-1], ".5%rel", "--metric", "top5", *options),
        *("--device", "cpu", "--name", "mine", "--no-wait", "--json"),
    )
    job = json.loads(out)
    assert code == 0
    assert job["name"] == "mine"
    asked = job["request"]
    assert asked["budget"] == {
        "max_loss": 0.5,
        "unit": "relative_percent",
        "metric": "top5",
        "confidence": None,
    }
    assert asked["methods"] == ["kcp", "svd"]
    assert asked["modes"] == [{"weight": "lstm.weight_hh_l0", "inputs": [2, 4], "outputs": [8, 4]}]
    assert asked["search"]["strategy"] == "genetic"
    objective = asked["objective"]
    assert (objective["batch"], objective["threads"], objective["device"]) == (8, 2, "cpu")
    assert objective["minimise"] == "weighted"
    assert objective["weights"] == {"latency": 0.7, "macs": 0.3, "parameters": 0.0}
    recovery = asked["recovery"]
    assert (recovery["method"], recovery["max_seconds"]) == ("finetune", 12)
    assert recovery["augment"] == {"flip": True, "shift": 2}
    assert objective["fold_norms"] is False


def test_norms_are_folded_where_that_is_ordered(url, run, order):
    _, out, _ = run("compress", *order, "--fold-norms", "--no-wait", "--json")
    assert json.loads(out)["request"]["objective"]["fold_norms"] is True


def test_widths_are_searched_where_that_is_ordered(url, run, order):
    _, out, _ = run("compress", *order, "--no-wait", "--json")
    assert json.loads(out)["request"]["widths"] is False
    _, out, _ = run("compress", *order, "--widths", "--no-wait", "--json")
    assert json.loads(out)["request"]["widths"] is True


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--widths", "--strategy", "uniform"], "widths came with strategy uniform"),
        (["--recover", "finetune", "--metric", "mse"], "recovery finetune came with the metric"),
    ],
)
def test_what_contradicts_itself_is_wrong_usage_before_anything_is_sent(run, options, sentence):
    model = ["resnet18", "--weights", __file__, "--data", "digits", "--max-loss", "1pp"]
    code, _, err = run("compress", *model, *options)
    assert code == 2
    assert sentence in " ".join(err.replace("│", " ").split())


def test_every_strategy_can_be_named():
    assert list(STRATEGIES) == [config().strategy for config in get_args(StrategyConfig)]
    assert list(STRATEGIES.values()) == list(get_args(StrategyConfig))


def test_a_builtin_set_is_named_instead_of_a_file(url, run, order):
    order[order.index("--data") + 1] = "digits"
    assert run("compress", *order, "--no-wait")[0] == 0


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ({"state": JobState.SUCCEEDED, "verdict": "budget_met"}, 0),
        ({"state": JobState.SUCCEEDED, "verdict": "budget_missed"}, 3),
        ({"state": JobState.SUCCEEDED, "verdict": "no_gain"}, 4),
        ({"state": JobState.FAILED, "reason": {"code": "bad_model", "detail": "no conv1"}}, 1),
        ({"state": JobState.CANCELLED}, 5),
    ],
    ids=["met", "missed", "no gain", "failed", "cancelled"],
)
@pytest.mark.usefixtures("url")
def test_the_exit_code_is_the_verdict(run, work, order, ending, code):
    work(**ending)
    ended, told, _ = run("compress", *order, "--out", order[2] + "-out")
    assert ended == code
    assert ending.get("verdict", str(ending["state"])) in told
    assert ending.get("reason", {}).get("detail", "") in told


@pytest.mark.usefixtures("url")
def test_the_answer_shows_what_was_gained_and_lost(run, work, order, tmp_path):
    work(JobState.SUCCEEDED, verdict="budget_met")
    _, told, followed = run("compress", *order, "--out", tmp_path / "out")
    assert "2.50x (2.40 to 2.60): 2.000 ms instead of 5.000 ms at batch 1" in told
    assert "0.25 points of top1, at most 0.75 with 95% confidence; 2.00 allowed" in told
    assert "minimised   time: 40% of the dense network's" in told
    assert "250,000 of 1,000,000 (25%)" in told
    assert f"{tmp_path / 'out'}: load.py" in told
    assert "succeeded" in followed


@pytest.mark.usefixtures("url")
def test_the_files_are_downloaded_and_the_archive_of_the_same_is_not(run, work, order, tmp_path):
    work(JobState.SUCCEEDED, verdict="budget_met")
    run("compress", *order, "--out", tmp_path / "out")
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert files == {"load.py": b"content"}


@pytest.mark.usefixtures("url")
def test_json_is_all_there_is_on_stdout(run, work, order, tmp_path):
    work(JobState.SUCCEEDED, verdict="no_gain")
    code, out, _ = run("compress", *order, "--out", tmp_path / "out", "--json")
    assert code == 4
    assert json.loads(out)["verdict"] == "no_gain"


def test_ctrl_c_leaves_the_job_and_says_how_to_come_back(url, run, job_id, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watching, "_lines", interrupted)
    code, out, err = run("jobs", "watch", job_id, "--out", "here")
    assert (code, out) == (130, "")
    assert f"ranksearch jobs watch {job_id} --out here" in err
    assert f"ranksearch jobs cancel {job_id}" in err
    assert json.loads(run("jobs", "show", job_id, "--json")[1])["state"] == "queued"


def test_watching_without_a_folder_downloads_nothing(run, work, job_id, tmp_path, monkeypatch):
    work(JobState.SUCCEEDED, verdict="budget_met")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert run("jobs", "watch", job_id)[0] == 0
    assert not list((tmp_path / "here").iterdir())


def test_jobs_are_listed_shown_and_cancelled(url, run, job_id):
    code, listed, _ = run("jobs", "list")
    assert (code, listed.splitlines()[0].split()[:3]) == (0, ["job", "state", "verdict"])
    assert f"{job_id}  queued" in listed
    assert (
        json.loads(run("jobs", "list", "--json", "--state", "queued")[1])["data"][0]["id"] == job_id
    )
    assert json.loads(run("jobs", "list", "--json", "--state", "running")[1])["data"] == []
    assert "queued" in run("jobs", "show", job_id)[1]
    assert "cancelled" in run("jobs", "cancel", job_id)[1]
    assert run("jobs", "watch", job_id)[0] == 5


def test_a_running_job_shows_its_phase(url, run, app, job_id):
    claim(app.state.sessions)
    assert "running (loading)" in run("jobs", "list")[1]
    assert "loading" in run("jobs", "show", job_id)[1]


def test_what_the_service_refuses_is_told_without_a_traceback(url, run, order):
    code, out, err = run("compress", "digit_cnn", *order[1:])
    assert (code, out) == (2, "")
    assert err.startswith("No such architecture: ")
    assert "did you mean digits_cnn" in err
    assert "Traceback" not in err


def test_an_unknown_job_is_a_usage_error(url, run):
    code, _, err = run("jobs", "show", "job_of_nobody")
    assert code == 2
    assert "job_of_nobody" in err


def test_a_service_that_does_not_answer_is_code_6(run, monkeypatch):
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0)
    monkeypatch.setenv("RANKSEARCH_URL", "http://127.0.0.1:9")
    code, out, err = run("jobs", "list")
    assert (code, out) == (6, "")
    assert "http://127.0.0.1:9" in err
    assert "ranksearch serve" in err


def test_a_wrong_token_is_told(url, run):
    code, _, err = run("jobs", "list", "--token", "another")
    assert code == 2
    assert "token" in err


def test_the_token_is_found_in_the_data_directory(url, run, monkeypatch, tmp_path):
    monkeypatch.delenv("RANKSEARCH_TOKEN")
    monkeypatch.setenv("RANKSEARCH_DATA_DIR", str(tmp_path))
    assert run("jobs", "list")[0] == 2
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert run("jobs", "list")[0] == 0


def test_an_option_goes_before_the_environment(url, run, monkeypatch):
    monkeypatch.setenv("RANKSEARCH_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("RANKSEARCH_TOKEN", "another")
    assert run("jobs", "list", "--url", url, "--token", TOKEN)[0] == 0


def test_a_variable_that_is_no_setting_is_a_usage_error(url, run, monkeypatch):
    monkeypatch.setenv("RANKSEARCH_TOKKEN", "x")
    code, _, err = run("jobs", "list")
    assert code == 2
    assert "RANKSEARCH_TOKKEN" in err


def test_a_network_of_ones_own_stays_on_this_machine(run, monkeypatch):
    """Without a service: what the command hands to the process that may import torch."""
    asked = []

    def run_module(module, *arguments, as_json):
        asked.append((module, arguments, as_json))
        raise typer.Exit(3)

    monkeypatch.setattr(compress_module, "run_module", run_module)
    options = ["--data", "mine:data", "--max-loss", "1%rel", "--mean", "-0.5,0.5", "--batch", "8"]
    assert run("compress", "mine:make", *options, "--confidence", "none")[0] == 3
    ((module, arguments, as_json),) = asked
    assert (module, as_json) == ("search.local", False)
    read = local._parser().parse_args(arguments)
    assert (read.model, read.data, read.weights) == ("mine:make", "mine:data", None)
    assert (read.max_loss, read.unit, read.confidence) == (1.0, "relative_percent", "none")
    assert (read.mean, read.batch, read.strategy) == ("-0.5,0.5", 8, "estimation")
    assert read.fold_norms is False
    assert (read.minimise, read.weight) == ("latency", None)
    run("compress", "mine:make", *options, "--method=kcp", "--modes=a=2x2:4x4")
    read = local._parser().parse_args(asked.pop()[1])
    assert (read.method, read.modes) == (["kcp"], ["a=2x2:4x4"])
    weights = ["--minimise=weighted", "--weight=latency=2", "--weight=macs=1"]
    run("compress", "mine:make", *options, *weights)
    read = local._parser().parse_args(asked.pop()[1])
    assert (read.minimise, read.weight) == ("weighted", ["latency=2", "macs=1"])
    run("compress", "mine:make", *options, "--fold-norms")
    assert local._parser().parse_args(asked[1][1]).fold_norms is True
    run("compress", "mine:make", *options, "--widths")
    assert local._parser().parse_args(asked[2][1]).widths is True
    assert read.widths is False


def test_a_network_by_name_needs_its_weights(run):
    code, _, err = run("compress", "resnet18", "--data", "digits", "--max-loss", "1pp")
    assert (code, "--weights" in err) == (2, True)


@pytest.mark.parametrize("arguments", [["gone.pt2"], ["mine.pt2", "--weights", "mine.pt2"]])
def test_a_program_is_a_file_and_needs_no_weights(run, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.pt2").touch()
    code, _, err = run("compress", *arguments, "--data", "digits", "--max-loss", "1pp")
    assert (code, arguments[0] in err) == (2, True)


def test_a_program_is_sent_without_an_architecture(url, run, order, tmp_path):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 4)).eval()
    program = write(network, (torch.ones(2, 1, 3, 3),), tmp_path / "mine.pt2")
    assert run("compress", program, *order[3:], "--no-wait")[0] == 0
    answer = httpx2.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {TOKEN}"})
    (model,) = answer.json()["data"]
    assert model["architecture"] == "program"


def test_transforms_and_inputs_arrive_as_they_were_given(url, run, order, tmp_path):
    transforms = ["--transforms", '[{"center_crop": 4}]', "--mean", "0.5", "--std", "0.25"]
    job = json.loads(run("compress", *order, *transforms, "--no-wait", "--json")[1])
    with connection.connect(url, TOKEN) as client:
        path = job["links"]["dataset"]
        description = client._send("GET", path).json()["description"]
    assert description["transforms"] == [{"center_crop": [4, 4]}]
    assert (description["mean"], description["std"]) == ([0.5], [0.25])
    tokens = tmp_path / "tokens.npz"
    np.savez(tokens, tokens=np.zeros((20, 7), "i8"), mask=np.ones((20, 7), "?"))
    order[order.index("--data") + 1] = str(tokens)
    found = run("compress", *order, "--inputs", "tokens,mask", "--metric", "mse", "--no-wait")
    assert found[0] == 0, found
    code, _, err = run("compress", *order, "--inputs", "labels", "--no-wait")
    assert (code, "'labels'" in err) == (2, True)
