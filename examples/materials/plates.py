"""Four plates of metal oxides, as four instruments would have measured them: a physical model, not measurements.

Every plate holds all 2,121 mixtures of its six elements in steps of 10 % with at most four elements, as real
combinatorial plates do. The overpotential at 10 mA/cm2 of mixture x on plate p, in mV:

    eta = 1000 BEP (soft_max(d, 3.2 - d) - 1.6) + 365 - b log10(A)             the material
        + j R_p + o_p + t_p (place - 0.5) + s_p z                               the instrument

- d is dG(O) - dG(OH) in eV. With the universal 3.2 eV between HO and HOO (Man et al. 2011, ChemCatChem 3, 1159)
  activity is a volcano with its top at d = 1.6. d(x') = sum of x'_i d_i + 4 sum over pairs of x'_i x'_j w_ij. The soft
  maximum (scale 0.08 eV) stands for a surface with many kinds of sites; BEP = 0.5 is the Bronsted-Evans-Polanyi factor.
- log10 A(x) = sum of x_i a_i is the real over the geometric area; b = 60 mV per decade is the Tafel slope.
- x' is x with the iron that a plate's electrolyte carries in: nickel and cobalt take it up (Trotochaud et al. 2014,
  JACS 136, 6744), so iron_p (x_ni + x_co) of the mixture acts as iron. This is a difference between labs that depends
  on the composition: no offset corrects it.
- j R_p: 10 mA/cm2 through the cell's series resistance. o_p: reference electrode. t_p: drift from the first to the last
  mixture measured. s_p: noise, z standard normal.

Numbers for elements are chosen to be plausible in order; they are not data. w_ij is drawn once, N(0, 0.15 eV).
"""

from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from examples.draws import Draws, Floats

ELEMENTS = ("ni", "fe", "co", "mn", "ce", "la", "ta", "cu", "sn", "sb", "ca")
DESCRIPTOR_EV = dict(zip(ELEMENTS, (1.72, 1.48, 1.66, 1.38, 1.30, 1.22, 2.05, 1.90, 1.98, 2.10, 1.15), strict=True))
LOG_AREA = dict(zip(ELEMENTS, (0.4, 0.3, 0.4, 0.3, 0.9, 0.6, -0.3, 0.1, -0.1, -0.2, 0.2), strict=True))
PAIR_EV = 0.15
SOFTNESS_EV = 0.08
BEP, TAFEL_MV, CURRENT_MA = 0.5, 60.0, 10.0
STEPS, MOST_ELEMENTS = 10, 4
ACTIVE_BELOW_MV = 450.0
MODEL_SEED = 2011


@dataclass(frozen=True, kw_only=True)
class Plate:
    """A plate and the instrument it was measured on; see the module for the meaning of the numbers."""

    name: str
    elements: tuple[str, ...]
    iron: float
    resistance_ohm_cm2: float
    offset_mv: float
    drift_mv: float
    noise_mv: float


def _plate(name: str, elements: str, *values: float) -> Plate:
    iron, resistance, offset, drift, noise = values
    return Plate(
        name=name,
        elements=tuple(elements.split()),
        iron=iron,
        resistance_ohm_cm2=resistance,
        offset_mv=offset,
        drift_mv=drift,
        noise_mv=noise,
    )


PLATES = (
    # elements of the four public plates; iron, ohm cm2, offset mV, drift mV, noise mV
    _plate("plate-3496", "ni fe co mn ce la", 0.00, 1.0, 0, 5, 10),
    _plate("plate-3851", "ni fe co ta mn cu", 0.08, 2.0, -12, 0, 6),
    _plate("plate-3860", "sn fe co ta mn cu", 0.03, 4.0, 20, 15, 12),
    _plate("plate-4098", "sn sb co ca ni mn", 0.15, 1.5, 8, -8, 8),
)


def mixtures(count: int) -> Floats:
    """Return all compositions of ``count`` elements on the grid with at most four of them, shape ``(k, count)``."""
    found = []
    for bars in combinations(range(STEPS + count - 1), count - 1):
        edges = (-1, *bars, STEPS + count - 1)
        parts = [after - before - 1 for before, after in pairwise(edges)]
        if sum(part > 0 for part in parts) <= MOST_ELEMENTS:
            found.append(parts)
    return np.array(found, dtype=np.float64) / STEPS


def pair_terms() -> Floats:
    """Return w, the same for all plates and seeds: symmetric, zero on the diagonal, eV, shape ``(11, 11)``."""
    upper = np.triu(PAIR_EV * Draws("oxide pairs", MODEL_SEED).normal(len(ELEMENTS), len(ELEMENTS)), 1)
    return np.asarray(upper + upper.T)


def material_mv(fractions: Floats, *, iron: float) -> Floats:
    """Return the first line of the model for fractions of all 11 elements, shape ``(k, 11)``."""
    acting = fractions.copy()
    host = [ELEMENTS.index("ni"), ELEMENTS.index("co")]
    taken = iron * fractions[:, host]
    acting[:, host] -= taken
    acting[:, ELEMENTS.index("fe")] += taken.sum(axis=1)
    descriptor = acting @ np.array(list(DESCRIPTOR_EV.values()))
    descriptor += 2 * np.einsum("ki,ij,kj->k", acting, pair_terms(), acting)  # each pair twice: 4 in all
    soft = SOFTNESS_EV * np.logaddexp(descriptor / SOFTNESS_EV, (3.2 - descriptor) / SOFTNESS_EV)
    log_area = fractions @ np.array(list(LOG_AREA.values()))
    return np.asarray(1000 * BEP * (soft - 1.6) + 365 - TAFEL_MV * log_area)


def measure(plate: Plate, *, records: int | None = None, seed: int = 0) -> dict[str, list[object]]:
    """Return the plate's table by column: fractions of all 11 elements, ``overpotential_mv`` and ``active``.

    Mixtures come in the order in which they were measured, which is drawn.
    """
    draws = Draws(f"oxygen evolution {plate.name}", seed)
    own = mixtures(len(plate.elements))
    own = own[np.argsort(draws.uniform(len(own)), kind="stable")]
    fractions = np.zeros((len(own), len(ELEMENTS)))
    fractions[:, [ELEMENTS.index(element) for element in plate.elements]] = own
    place = np.linspace(0, 1, len(own))
    measured = material_mv(fractions, iron=plate.iron) + CURRENT_MA * plate.resistance_ohm_cm2 + plate.offset_mv
    measured += plate.drift_mv * (place - 0.5) + plate.noise_mv * draws.normal(len(own))
    return table(fractions[:records], measured[:records])


def table(fractions: Floats, overpotential_mv: Floats) -> dict[str, list[object]]:
    """Return the columns that generated and real plates share."""
    columns: dict[str, list[object]] = {f"{name}": fractions[:, i].tolist() for i, name in enumerate(ELEMENTS)}
    columns["overpotential_mv"] = overpotential_mv.tolist()
    columns["active"] = (overpotential_mv < ACTIVE_BELOW_MV).astype(int).tolist()
    return columns
