"""Networks that may be asked for again."""

from torch import nn

from compress.plan import Plan


class Kept:
    """Networks by plan: the last one, and as many before it as fit."""

    def __init__(self, most_bytes: int) -> None:
        """Keep nothing yet.

        Args:
            most_bytes: that the weights may take, but for the last network.
        """
        self._most_bytes = most_bytes
        self._networks: dict[str, nn.Module] = {}

    def get(self, plan: Plan) -> nn.Module | None:
        return self._networks.get(plan.to_json())

    def put(self, plan: Plan, network: nn.Module) -> None:
        """Keep a network, and drop the oldest ones that no longer fit."""
        self._networks.pop(plan.to_json(), None)
        self._networks[plan.to_json()] = network
        sizes = {each: _bytes(kept) for each, kept in self._networks.items()}
        for oldest in list(sizes)[:-1]:
            if sum(sizes.values()) <= self._most_bytes:
                break
            del sizes[oldest], self._networks[oldest]


def _bytes(network: nn.Module) -> int:
    return sum(value.nbytes for value in network.state_dict().values())
