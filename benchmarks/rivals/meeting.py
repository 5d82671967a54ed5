"""The networks that rivals meet on, each with its promise."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.case import CIFAR10, DIGITS, MNIST, RESNET, VGG, Case
from search.analysis import analyse
from search.config import Budget, Objective, Runtime, SearchConfig
from search.progress import silent
from search.subject import Subject
from search.table import ChoiceTable

REPAIR_IMAGES = 64  # a quarter of a job's: repair is most of an evaluation, the same for all


@dataclass(frozen=True, slots=True)
class Meeting:
    """A trained network, and the points of top-1 accuracy that it may lose."""

    case: Case
    max_loss: float
    images: int | None = None
    """So many of the images that are measured on; None for all."""

    def prepare(
        self, data_root: Path, runtime: Runtime, known: Path
    ) -> tuple[Subject, ChoiceTable]:
        """The network ready to be searched, and its choice table.

        Args:
            data_root: the folder of the larger sets.
            runtime: that is raced in.
            known: the table of an earlier run, written here where there is none.

        Raises:
            DataError: the data are not there.
        """
        budget = Budget(max_loss=self.max_loss, unit="points", confidence=None)
        config = SearchConfig(budget=budget, objective=Objective(device="cpu", runtime=runtime))
        arrays = self.case.arrays(data_root, self.images)
        subject = Subject.prepare(self.case.load(), arrays, config, {})
        if known.exists():
            table = ChoiceTable.from_json(known.read_text())
        else:
            table = analyse(subject, config, silent)
            known.parent.mkdir(parents=True, exist_ok=True)
            known.write_text(table.to_json())
        subject.calibration = [subject.calibration[0][:REPAIR_IMAGES]]
        return subject, table


# Budgets so tight that the smallest choices together do not keep them.
MEETINGS = (
    Meeting(DIGITS, 0.5),
    Meeting(MNIST, 0.1),
    Meeting(CIFAR10, 1.0, images=2500),
    Meeting(RESNET, 1.0, images=2500),
    Meeting(VGG, 1.0, images=2500),
)
