"""What stands in for the layers that a plan names."""

from collections import defaultdict

from torch import Tensor, nn

from compress.plan import Choice, Plan
from compress.recurrent.projection import Projection
from compress.recurrent.weights import is_recurrent, parted
from compress.surgery import factorized, with_projections
from search.factors import Factors


def replacements(dense: nn.Module, factors: Factors, plan: Plan) -> dict[str, nn.Module]:
    """By the names of the modules: factorised layers, and recurrent ones with factorised weights.

    Args:
        dense: the network as it came; left as it is.
        factors: of its layers; what is not known yet is found.
        plan: of the layers to factorise.

    Raises:
        CompressError: the plan does not fit the network, or a decomposition does not converge.
    """
    factors.collect([name for name, choice in plan if not factors.known(name, choice)])
    layers: dict[str, nn.Module] = {}
    projections: dict[str, dict[str, Projection]] = defaultdict(dict)
    for name, choice in plan:
        if factors.is_weight(name):
            module, weight = parted(name)
            projections[module][weight] = factors.projection(name, choice)
        else:
            known = _Known(factors, name, choice)
            layers[name] = factorized(dense.get_submodule(name), choice, decomposition=known)
    for module, weights in projections.items():
        layer = dense.get_submodule(module)
        assert is_recurrent(layer)
        layers[module] = with_projections(layer, weights)
    return layers


class _Known:
    """Factors found before, in the form of a decomposition."""

    def __init__(self, factors: Factors, name: str, choice: Choice) -> None:
        self._factors = factors.of(name, choice)

    def factors(self, ranks: tuple[int, ...]) -> dict[str, Tensor]:  # noqa: ARG002, of one choice
        return self._factors
