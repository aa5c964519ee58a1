"""Patients of four made-up hospitals: a stand-in for the heart hospitals where their files are not at hand.

Nobody in these tables exists. The hospitals have the sizes and the shares of disease of the four in UCI Heart Disease;
everything else is a simple model, all draws independent:

- disease: yes with the prevalence. Age: normal, mean_age + 4 if diseased, deviation 9, from 30 to 80. Man: probability
  men + 0.12 if diseased.
- pain (1 typical, 2 atypical, 3 other, 4 none) by :data:`PAIN`; pain on exercise: 0.55 if diseased, else 0.15
- resting pressure: normal, 130 + 3 if diseased + cuff_mmhg, deviation 17
- cholesterol: normal, 235 + 15 if diseased, deviation 45
- highest pulse: normal, 200 - 0.8 age - 18 if diseased + treadmill_bpm, deviation 18
- st_depression: exponential, mean 1.5 if diseased, else 0.5, to one decimal, at most 4
- a hospital leaves out each of cholesterol and st_depression with its own frequency (``gaps``)

Cuffs, treadmills and habits of leaving out are the differences that no record tells of.
"""

from dataclasses import dataclass

import numpy as np

from examples.draws import Draws

PAIN = {
    True: {"1": 0.05, "2": 0.07, "3": 0.16, "4": 0.72},
    False: {"1": 0.08, "2": 0.37, "3": 0.30, "4": 0.25},
}


@dataclass(frozen=True, kw_only=True)
class Hospital:
    """A hospital's size, patients, instruments and habits; see the module for the meaning of the numbers."""

    name: str
    records: int
    prevalence: float
    mean_age: float
    men: float
    cuff_mmhg: float
    treadmill_bpm: float
    gaps: dict[str, float]


HOSPITALS = (
    Hospital(
        name="hospital-1",
        records=303,
        prevalence=0.46,
        mean_age=53,
        men=0.62,
        cuff_mmhg=0,
        treadmill_bpm=0,
        gaps={"cholesterol": 0.0, "st_depression": 0.0},
    ),
    Hospital(
        name="hospital-2",
        records=294,
        prevalence=0.36,
        mean_age=47,
        men=0.68,
        cuff_mmhg=2,
        treadmill_bpm=-6,
        gaps={"cholesterol": 0.08, "st_depression": 0.0},
    ),
    Hospital(
        name="hospital-3",
        records=123,
        prevalence=0.93,
        mean_age=52,
        men=0.80,
        cuff_mmhg=-2,
        treadmill_bpm=-18,
        gaps={"cholesterol": 1.0, "st_depression": 0.05},
    ),
    Hospital(
        name="hospital-4",
        records=200,
        prevalence=0.75,
        mean_age=57,
        men=0.85,
        cuff_mmhg=4,
        treadmill_bpm=-16,
        gaps={"cholesterol": 0.28, "st_depression": 0.28},
    ),
)


def admit(hospital: Hospital, *, records: int | None = None, seed: int = 0) -> dict[str, list[object]]:
    """Return the hospital's table by column; a gap is empty."""
    n = hospital.records if records is None else records
    draws = Draws(f"hospital {hospital.name}", seed)
    ill = draws.uniform(n) < hospital.prevalence
    age = np.clip(np.round(hospital.mean_age + 4 * ill + 9 * draws.normal(n)), 30, 80)
    man = draws.uniform(n) < hospital.men + 0.12 * ill
    with_disease, without = draws.choices(PAIN[True], n), draws.choices(PAIN[False], n)
    pressure = 130 + 3 * ill + hospital.cuff_mmhg + 17 * draws.normal(n)
    cholesterol = 235 + 15 * ill + 45 * draws.normal(n)
    pulse = 200 - 0.8 * age - 18 * ill + hospital.treadmill_bpm + 18 * draws.normal(n)
    depression = np.minimum(np.where(ill, 1.5, 0.5) * -np.log(draws.uniform(n)), 4)
    columns: dict[str, list[object]] = {
        "age": age.astype(int).tolist(),
        "man": man.astype(int).tolist(),
        "pain": [yes if sick else no for sick, yes, no in zip(ill, with_disease, without, strict=True)],
        "pressure": np.round(pressure).astype(int).tolist(),
        "cholesterol": np.round(cholesterol).astype(int).tolist(),
        "pulse": np.round(pulse).astype(int).tolist(),
        "pain_on_exercise": (draws.uniform(n) < np.where(ill, 0.55, 0.15)).astype(int).tolist(),
        "st_depression": np.round(depression, 1).tolist(),
        "disease": ill.astype(int).tolist(),
    }
    for name, frequency in hospital.gaps.items():
        left_out = draws.uniform(n) < frequency
        columns[name] = ["" if gone else value for gone, value in zip(left_out, columns[name], strict=True)]
    return columns
