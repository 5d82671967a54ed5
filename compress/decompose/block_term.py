"""Block term decomposition: a kernel as a sum of Tucker-2 terms of equal ranks.

De Lathauwer, "Decompositions of a Higher-Order Tensor in Block Terms, Part II: Definitions and
Uniqueness", 2008. The terms are fitted one after the other, each to what those before it leave,
and then again in turn, each to what all others leave: steps of Tucker-2 throughout, in the plain
norm or in that of the data. At last the output factors of all terms are fitted together.

Letters: k, the places of a flattened kernel; p, ranks out; q, ranks in; g, terms.
"""

import torch
from torch import Tensor

from compress.decompose.linalg import ROUND_OFF, check_ranks, exact, exact_metric, regression
from compress.decompose.tucker import Tucker2
from compress.decompose.tucker_loss import Factors, TuckerLoss, product

SWEEPS = 1
STEPS = 3  # of conjugate gradients for each term, in each sweep


class BlockTerm:
    """Any ranks of one kernel.

    Args:
        weight: (O, I, kh, kw).
        metric: second moment (D, D) of the patches, D = I * kh * kw, or None.

    Raises:
        CompressError: the weight or the metric is not finite, or they do not fit.
    """

    def __init__(self, weight: Tensor, metric: Tensor | None = None) -> None:
        self._size = weight.shape[2:]
        self._kernel = exact(weight).flatten(2)
        self._plain = TuckerLoss.of(self._kernel, None)
        self._loss = TuckerLoss.of(self._kernel, exact_metric(metric, weight))

    def factors(self, ranks: tuple[int, ...]) -> Factors:
        """Input factors (G R_in, I), cores (G R_out, R_in, kh, kw), output factors (O, G R_out).

        The G terms one below the other, as a grouped convolution holds them; a single one is
        that of Tucker-2. In the norm of the metric never worse than the plain decomposition.

        Args:
            ranks: (R_out, R_in, G).

        Raises:
            RankError: a rank lies outside 1 to (O, I), or G outside 1 to the lesser of them.
        """
        outputs, inputs, _ = self._kernel.shape
        check_ranks(ranks, (outputs, inputs, min(outputs, inputs)))
        in_factors, cores, out_factors = self._blocks(ranks)
        return in_factors.T, cores.reshape(*cores.shape[:2], *self._size), out_factors

    def _blocks(self, ranks: tuple[int, ...]) -> Factors:
        terms = self._terms(self._loss, ranks)
        if len(terms) == 1:
            return terms[0]
        fits = [_fit_together(self._loss, terms)]
        if self._loss.metric is not None:
            fits.append(_fit_together(self._loss, self._terms(self._plain, ranks)))
        return min(fits, key=lambda fit: fit[1])[0]

    def _terms(self, loss: TuckerLoss, ranks: tuple[int, ...]) -> list[Factors]:
        *pair, count = ranks
        terms: list[Factors] = []
        kernel, rest = self._kernel, loss  # what the terms so far leave
        smallest = ROUND_OFF * self._kernel.square().sum()
        while len(terms) < count and (not terms or kernel.square().sum() > smallest):
            in_factor, core, out_factor = Tucker2(kernel, rest.metric).factors(tuple(pair))
            term = (in_factor.T, core, out_factor)
            kernel, rest = kernel - product(term), rest.without(term)
            terms.append(term)
        for _ in range(SWEEPS if len(terms) > 1 else 0):
            for i in range(len(terms)):
                own = rest.restored(terms[i])
                terms[i], _ = own.fit_outputs(own.fit_inputs(terms[i], STEPS))
                rest = own.without(terms[i])
        # Fitted to round-off, the terms that are left over would grow without bound.
        in_factor, core, out_factor = map(torch.zeros_like, terms[0])
        return terms + [(in_factor, core, out_factor)] * (count - len(terms))


def _fit_together(loss: TuckerLoss, terms: list[Factors]) -> tuple[Factors, float]:
    """The factors of all terms side by side, the output factors fitted anew; the loss."""
    in_factors, cores, out_factors = (
        torch.cat(parts, axis)
        for parts, axis in zip(zip(*terms, strict=True), (1, 0, 1), strict=True)
    )
    kernels = torch.cat([torch.einsum("iq,pqk->pik", term[0], term[1]) for term in terms])
    gram = loss.image(kernels).flatten(1) @ kernels.flatten(1).T
    cross = loss.cross.flatten(1) @ kernels.flatten(1).T
    out_factors, _ = regression(gram, cross, out_factors)
    error = float((out_factors * (out_factors @ gram - 2 * cross)).sum())
    return (in_factors, cores, out_factors), error
