"""A plan: which method and ranks each layer gets, which width its outputs. Data, without torch."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from compress.catalog import ALL_METHODS
from compress.errors import PlanError, RankError
from compress.recurrent.modes import Modes

VERSION = 1


@dataclass(frozen=True, slots=True)
class Choice:
    """A method and its free ranks, for one layer or one weight of a recurrent layer."""

    method: str
    ranks: tuple[int, ...]
    modes: Modes | None = None
    """Of a recurrent weight alone, whose two sides are folded so; None for the default."""

    def __str__(self) -> str:
        return f"{self.method}({', '.join(map(str, self.ranks))})"


@dataclass(frozen=True, slots=True)
class Plan:
    """Layer name -> choice; a layer that is not named stays dense."""

    choices: Mapping[str, Choice] = field(default_factory=dict)
    widths: Mapping[str, int] = field(default_factory=dict)
    """Layer name -> its output channels, where some are taken out before it is factorised."""

    def __iter__(self) -> Iterator[tuple[str, Choice]]:
        return iter(self.choices.items())

    def __len__(self) -> int:
        return len(self.choices)

    def __str__(self) -> str:
        wide = [f"{name}: {width} wide" for name, width in self.widths.items()]
        return ", ".join([*wide, *(f"{name}: {choice}" for name, choice in self)])

    def to_json(self) -> str:
        """Canonical JSON: equal plans give equal text, so its digest can serve as a key."""
        layers = {name: _entry(choice) for name, choice in self}
        widths = {"widths": dict(self.widths)} if self.widths else {}
        return json.dumps({"version": VERSION, "layers": layers, **widths}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Read what `to_json` wrote.

        Raises:
            PlanError: not JSON, another version, an unknown method, or ranks or widths that are no
                positive integers.
        """
        try:
            document = json.loads(text)
            version, layers = document["version"], document["layers"]
            if version != VERSION:
                raise PlanError(f"plan version {version!r} came, version {VERSION} was wanted")
            widths = document.get("widths", {})
            if not all(_is_positive(width) for width in widths.values()):
                raise PlanError(f"widths {widths!r} came, positive integers were wanted")
            return cls({name: _choice(name, entry) for name, entry in layers.items()}, widths)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, PlanError):
                raise
            raise PlanError(f"malformed plan: {error!r}") from error


def _entry(choice: Choice) -> dict[str, object]:
    modes = {} if choice.modes is None else {"modes": choice.modes.as_json()}
    return {"method": choice.method, "ranks": list(choice.ranks), **modes}


def _choice(name: str, entry: Mapping[str, object]) -> Choice:
    method, ranks = entry["method"], entry["ranks"]
    if method not in ALL_METHODS:
        raise PlanError(f"layer {name!r}: method {method!r} came, one of {ALL_METHODS} was wanted")
    if not isinstance(ranks, list) or not all(map(_is_positive, ranks)):
        raise PlanError(f"layer {name!r}: ranks {ranks!r} came, positive integers were wanted")
    return Choice(str(method), tuple(ranks), _modes(name, entry.get("modes")))


def _modes(name: str, modes: object) -> Modes | None:
    if modes is None:
        return None
    try:
        return Modes.from_json(modes)
    except RankError as error:
        raise PlanError(f"layer {name!r}: {error}") from error


def _is_positive(number: object) -> bool:
    return type(number) is int and number > 0
