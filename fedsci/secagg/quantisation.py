"""Weighted real vectors as ring integers, for studies that add no noise.

A coordinate ``x`` in ``[-bound, bound]`` becomes the nearest integer to ``weight * x * levels / bound``.
Rounding is deterministic, the grid is public, and ``levels`` is an integer, so whether the sum can wrap is
decided without floating point. Studies with differential privacy round and add noise in one step elsewhere.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsci.errors import ProtocolError
from fedsci.secagg.ring import RingSpec, RingVector, check_headroom

_BLOCK = 1 << 15


@dataclass(frozen=True, kw_only=True)
class Quantisation:
    """A public grid on ``[-bound, bound]`` whose sums over ``sites`` sites never wrap.

    Attributes:
        bound: largest magnitude of a weighted coordinate, in the vector's units.
        levels: grid steps from 0 to ``bound``; a site's integers lie in ``[-levels, levels]``.
        sites: how many sites at most are summed.
        ring: the ring that holds the sum.
    """

    bound: float
    levels: int
    sites: int
    ring: RingSpec

    def __post_init__(self) -> None:
        if not (math.isfinite(self.bound) and self.bound > 0):
            raise ProtocolError(f"a magnitude bound of {self.bound} is not usable", rule="bad-bound")
        if self.sites < 1 or not 1 <= self.levels <= 1 << 52:
            raise ProtocolError(f"{self.levels} levels for {self.sites} sites are not usable", rule="grid-too-coarse")
        check_headroom(self.ring, self.site_bound * self.sites)

    @property
    def step(self) -> float:
        """Distance of neighbouring grid points, in the vector's units."""
        return self.bound / self.levels

    @property
    def site_bound(self) -> int:
        """Largest magnitude of one site's integers."""
        return self.levels

    @property
    def error_bound(self) -> float:
        """Most that one site adds to the error of one coordinate of the sum: half a step.

        The last factor covers the float64 rounding of the product and of the quotient.
        """
        return self.step / 2 + self.bound * 2.0**-50


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """A site's integers, each within ``[-levels, levels]``.

    Attributes:
        vector: ring elements; secret until masked.
        clipped: how many coordinates were outside the bound; sensitive, never sent.
    """

    vector: RingVector
    clipped: int


def plan_quantisation(*, bound: float, sites: int, ring_bits: int, coarsest_step: float | None = None) -> Quantisation:
    """Return the finest grid on ``[-bound, bound]`` whose sum over ``sites`` sites fits the ring.

    Raises:
        ProtocolError: ``grid-too-coarse`` if even that grid is coarser than ``coarsest_step``, or if the ring
            leaves no level at all.
    """
    ring = RingSpec(bits=ring_bits)
    if sites < 1:
        raise ProtocolError(f"a sum over {sites} sites is not usable", rule="grid-too-coarse")
    plan = Quantisation(bound=bound, levels=min(ring.largest_sum // sites, 1 << 52), sites=sites, ring=ring)
    if coarsest_step is not None and not plan.step <= coarsest_step:
        raise ProtocolError(
            f"{ring_bits} bits over {sites} sites give a step of {plan.step:.3g}, above {coarsest_step:.3g}",
            rule="grid-too-coarse",
            hint="use a wider ring, a smaller bound, or accept a larger step",
        )
    return plan


def quantise(
    values: NDArray[np.floating[Any]],
    plan: Quantisation,
    *,
    weight: float = 1.0,
    out: RingVector | None = None,
) -> Quantised:
    """Return ``weight * values`` on the grid, clipped to the bound; ``weight`` is public, in (0, 1].

    The error of a coordinate that was not clipped is at most ``plan.error_bound``. NaN and infinity are
    refused. Works in blocks: it allocates 256 KiB, and the result unless ``out`` is given to be overwritten.
    """
    if not 0 < weight <= 1:
        raise ProtocolError(f"a weight of {weight} is outside (0, 1]", rule="bad-weight")
    flat = values.reshape(-1)
    out = plan.ring.zeros(flat.size) if out is None else plan.ring.check_vector(out)
    if out.size != flat.size:
        raise ProtocolError(f"{out.size} coordinates of room for {flat.size}", rule="wrong-length")
    signed = out.view(plan.ring.signed_dtype)
    clipped = 0
    scale = weight * plan.levels / plan.bound
    scratch = np.empty(min(_BLOCK, flat.size))
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        scaled = scratch[: block.size]
        with np.errstate(over="ignore", invalid="ignore"):
            np.multiply(block, scale, out=scaled, dtype=np.float64)
            inside = -plan.levels < scaled.min() - 1 and scaled.max() + 1 < plan.levels
        if not inside:
            clipped += _clip(block, scaled, plan, weight)
        np.rint(scaled, out=scaled)
        signed[start : start + block.size] = scaled
    return Quantised(vector=out, clipped=clipped)


def _clip(block: NDArray[np.floating[Any]], scaled: NDArray[np.float64], plan: Quantisation, weight: float) -> int:
    """Clip ``scaled`` to the grid in place and return how many of ``block`` were outside the bound."""
    if not np.isfinite(block).all():
        raise ProtocolError("a vector holds NaN or infinity", rule="not-finite")
    np.clip(scaled, -plan.levels, plan.levels, out=scaled)
    return int(np.count_nonzero(np.abs(block.astype(np.float64)) * weight > plan.bound))


def dequantise(total: RingVector, plan: Quantisation) -> NDArray[np.float64]:
    """Return the sum of the sites' weighted vectors, within ``n * plan.error_bound`` a coordinate."""
    lifted: NDArray[np.float64] = plan.ring.to_signed(total).astype(np.float64)
    return lifted * (plan.bound / plan.levels)
