"""The objective in the words of a person."""

from typing import Final, NamedTuple

from search.config import Minimise, Objective


class Words(NamedTuple):
    """What is minimised, and what a network is that has less of it."""

    noun: str
    cheaper: str
    cheapest: str


WORDS: Final[dict[Minimise, Words]] = {
    "latency": Words("time", "faster", "fastest"),
    "macs": Words("MACs", "cheaper", "cheapest"),
    "parameters": Words("parameters", "smaller", "smallest"),
    "weighted": Words("weighted cost", "cheaper", "cheapest"),
}


def words_of(objective: Objective) -> Words:
    """The words for what is minimised."""
    return WORDS[objective.minimise]


def said_cost(objective: Objective, cost: float) -> str:
    """What a result costs, behind its speed; nothing where its speed says it."""
    if objective.minimise == "latency":
        return ""
    return f", with {100 * cost:.1f} % of its {words_of(objective).noun}"
