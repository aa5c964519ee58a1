"""Sums of clipped per-record gradients, at a fraction of the cost of making every gradient.

The promise: the sum moves by at most C (L2) when one record is added or removed, whatever the weights, which
may be chosen by somebody who wants it to move further. It rests on four points.

1. *A record's activations and output gradients depend on that record alone.* Every pass has the same public
   number of rows (:mod:`~fedsci.training.per_record.passes`), the last one filled up, since products of another
   shape are summed in another order. Layers that mix records, or draw random numbers, are refused.
2. *What is measured is at least as long as what is added* (:mod:`~fedsci.training.per_record.pieces`). A layer's
   gradient is either made, in float32, once: then that very vector is measured and added, so it does not matter
   how badly its terms cancelled. Or it stays a short sum of products g aᵀ: then its norm is computed in float64
   from inner products, plus a bound of their rounding, and the record is scaled down further if its terms are
   ``CANCELLATION`` times longer than their sum, so that the rounding of the weighted product stays below the
   slack of :mod:`fedsci.privacy.clipping`. In both cases sums over records are float64.
3. *A record that is not finite adds nothing*: its rows are replaced by zeros before any product, since NaN times
   zero is NaN.
4. *Nothing is missed.* Every use of a parameter is counted in the graph; one that no layer reports is refused.

Bu et al. 2023, Differentially Private Optimization on Large Model at Small Cost (book-keeping), and Bu et al. 2022,
Scalable and Efficient Training of Large CNNs with Differential Privacy (a choice per layer). Opacus is the
reference, and the fallback for models with layers that are not in
:mod:`~fedsci.training.per_record.layers`.
"""

from fedsci.training.per_record.clipped import ClippedGradients
from fedsci.training.per_record.grouped import GroupedGradients

__all__ = ["ClippedGradients", "GroupedGradients"]
