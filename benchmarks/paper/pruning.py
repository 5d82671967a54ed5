"""Rows of the rival that prunes: Torch-Pruning, trained like ours, at the same budgets."""

import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import torch_pruning
from torch import nn

from benchmarks.case import Case
from benchmarks.paper.entry import BEST, config_of, pruning_budgets
from benchmarks.paper.row import Delivered, Row, asked, row
from benchmarks.rivals import pruning
from search.config import Recovery
from search.evaluation import allowed_on, loss_on
from search.metrics import likelihood
from search.recovery.recovery import recover_
from search.strategy import Candidate, Costs, Point, best, search
from search.subject import Subject

Trained = Callable[[Point], tuple[nn.Module, float]]


def pruned(case: Case, recovery: Recovery, data_root: Path) -> Iterator[Row]:
    """A row for each budget: the largest share of all layers' outputs that may go.

    A network that was trained for one budget is not trained again for the next.

    Args:
        case: the network.
        recovery: how each pruned network is trained.
        data_root: the folder of the larger sets.

    Raises:
        DataError: the data are not there.
    """
    budgets = pruning_budgets(case, recovery)
    configs = [config_of(max_loss, BEST, recovery) for max_loss in budgets]
    subject = Subject.prepare(case.load(), case.arrays(data_root), configs[0], {})
    trained = _trained(subject)
    for config in configs:
        begun = time.monotonic()
        subject.config = config
        allowed = allowed_on(subject.search, config.budget)

        def judge(points: list[Point], allowed: float = allowed) -> list[Candidate]:
            losses = [trained(point)[1] for point in points]
            shares = [1 - sum(point) for point in points]  # the more is gone, the faster
            return [
                Candidate(point, Costs(loss, loss - allowed, share, share, share, share))
                for point, loss, share in zip(points, losses, shares, strict=True)
            ]

        asks = list(search(pruning.PruningSearch(len(pruning.prunable(subject))), judge))
        chosen = _kept(subject, asks, trained)
        model = trained(chosen.point)[0] if chosen else subject.opponent
        macs, parameters = torch_pruning.utils.count_ops_and_params(model, subject.example)
        found = Delivered(
            model=model,
            parameters=parameters,
            macs=round(macs),
            evaluations=len(asks),
            seconds=time.monotonic() - begun,
            plan=f"{pruning.STEP * chosen.point[0]:.0%} of all outputs" if chosen else "",
        )
        yield row(subject, {"method": "Torch-Pruning", "kind": "rival", **asked(subject)}, found)


def _kept(subject: Subject, asks: list[Candidate], trained: Trained) -> Candidate | None:
    """The boldest that keeps the budget on both splits, else on the first alone; None without any.

    Ours falls back on a safer finalist where the confirmation split refuses one, so may the rival.
    """
    budget = subject.config.budget
    allowed = allowed_on(subject.confirmation, budget)
    confirmed = (
        c
        for c in asks
        if c.costs.is_feasible
        and loss_on(subject.confirmation, trained(c.point)[0], budget).value <= allowed
    )
    return best(list(confirmed)) or best(asks)


def _trained(subject: Subject) -> Trained:
    """Makes, trains and judges the network of a point, each once."""

    @cache
    def trained(point: Point) -> tuple[nn.Module, float]:
        network = pruning.build(subject, point)
        assert subject.material is not None
        config = subject.config
        recover_(
            network,
            subject.material,
            likelihood(config.budget.metric),
            config.recovery,
            clock=time.process_time,
        )
        return network, loss_on(subject.search, network, config.budget).value

    return trained
