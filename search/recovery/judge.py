"""Whether a network got better: the aim on samples that it never learned from."""

from torch import Tensor, nn

from compress.calibration import evaluating
from search.recovery.aim import Aim
from search.recovery.box import Box
from search.recovery.material import Material

LOOKS = 8  # in the course of a training, at equal shares of the way
SHARE = 0.15  # of the box that all of them may take, and the one before


class Judge:
    """Looks at a network, always on the same samples, and keeps the best state that it saw."""

    def __init__(self, model: nn.Module, aim: Aim, material: Material, box: Box) -> None:
        """Take the network as it is for the best so far.

        Args:
            model: in any mode, which is left to it.
            aim: lower is better.
            material: of which the samples left out are looked at, as many as the box allows.
            box: that the whole training may take.
        """
        self._model = model
        self._aim = aim
        first = next(material.judging())
        begun = box.seconds
        self._answers(first.inputs)
        spent = box.seconds - begun
        allowed = SHARE * box.left / (LOOKS + 1)
        fits = int(allowed / spent) if spent > 0 else material.left_out
        self._examples = [
            example for _, example in zip(range(max(1, fits)), material.judging(), strict=False)
        ]
        self.before = self.best = self._found()
        self._state = self._now()

    def look(self) -> bool:
        """Whether the network is better than ever; False where the aim is NaN."""
        found = self._found()
        if not found < self.best:
            return False
        self.best, self._state = found, self._now()
        return True

    @property
    def told(self) -> str:
        """What was found so far."""
        return f"{self.before:.3g} came to {self.best:.3g} on samples left out"

    def put_back_(self) -> None:
        """The network as it was when it was best."""
        self._model.load_state_dict(self._state)

    def _found(self) -> float:
        total = samples = 0.0
        for example in self._examples:
            total += float(self._aim(self._answers(example.inputs), example)) * len(example.answers)
            samples += len(example.answers)
        return total / samples

    def _answers(self, inputs: Tensor) -> Tensor:
        with evaluating(self._model):
            answers: Tensor = self._model(inputs)
        return answers

    def _now(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self._model.state_dict().items()}
