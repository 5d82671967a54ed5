"""From a question to its costs, by the same samples and the same race for every rival."""

import time
from collections.abc import Callable

from torch import nn

from benchmarks.rivals.contest import Evaluated
from benchmarks.rivals.journal import Journal
from search.config import LATENCY
from search.evaluation import AnswerError, Evaluator, judged
from search.evaluation import plan_key as key_of
from search.strategy import FAILED, Costs, Point
from search.subject import Subject
from search.table import ChoiceTable


class Points:
    """Points of the choice table, by the evaluator of the product."""

    name = "ranks"

    def __init__(self, subject: Subject, table: ChoiceTable, journal: Journal) -> None:
        self._evaluator = Evaluator(subject, table, subject.config.budget)
        self._subject = subject
        self._table = table
        self._journal = journal

    def __call__(self, point: Point) -> Evaluated:
        """Costs of a point; NaN where its network cannot be made."""
        key = key_of(self._table.plan(point))
        return self._journal.get(key) or self._new(key, point)

    def network(self, point: Point) -> nn.Module:
        """The network that a point stands for."""
        return self._subject.assemble(self._table.plan(point))

    def _new(self, key: str, point: Point) -> Evaluated:
        begun = time.process_time()
        costs = self._evaluator.evaluate(point).costs
        seconds = time.process_time() - begun
        self._journal.put(key, costs, seconds)
        return costs, seconds


class Networks:
    """Points that stand for networks of another kind, which `build` makes of the dense one."""

    def __init__(
        self,
        subject: Subject,
        journal: Journal,
        name: str,
        build: Callable[[Subject, Point], nn.Module],
    ) -> None:
        self._subject = subject
        self._journal = journal
        self.name = name
        self._build = build

    def __call__(self, point: Point) -> Evaluated:
        """Costs of a point; NaN where the network's answers are not finite."""
        key = f"{self.name} {point}"
        return self._journal.get(key) or self._new(key, point)

    def network(self, point: Point) -> nn.Module:
        """The network that a point stands for."""
        return self._build(self._subject, point)

    def _new(self, key: str, point: Point) -> Evaluated:
        begun = time.process_time()
        try:
            costs = costs_of(self._subject, self.network(point))
        except AnswerError:
            costs = FAILED
        seconds = time.process_time() - begun
        self._journal.put(key, costs, seconds)
        return costs, seconds


def costs_of(subject: Subject, network: nn.Module) -> Costs:
    """As `search.evaluation.Evaluator` finds them for a plan, of any network.

    Raises:
        AnswerError: an answer is not finite.
    """
    parameters = sum(weight.numel() for weight in network.parameters())
    costs, _, _ = judged(
        subject,
        network,
        subject.config.budget,
        LATENCY,
        parameter_share=parameters / subject.parameters,
        mac_share=1.0,  # not counted: a rival's layers are of any kind, and all minimise latency
    )
    return costs
