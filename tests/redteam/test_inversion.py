"""Records are rebuilt from what labs send in the open, and not from what masks and noise leave of it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fedsci.config.shipped import shipped
from fedsci.config.study_file import load_study
from fedsci.redteam.cohort import labs_of
from fedsci.redteam.inversion import Attacker, Rebuilt, inversion, rebuild
from fedsci.redteam.wiretap import opened, read_along, variant

LABS = "sites=[../../sites/lab-01.yaml, ../../sites/lab-02.yaml, ../../sites/lab-04.yaml, ../../sites/lab-06.yaml]"
SMALL = [LABS, "secure_aggregation={min_survivors: 3}", "privacy.colluding_sites=1", "training.rounds=3"]


def digits(*overrides):
    return load_study(shipped("examples") / "digits" / "study.yaml", overrides=[*SMALL, *overrides])


@pytest.fixture(scope="module")
def found():
    return {row.key: row for row in inversion(digits(), seed=1, victims=12)}


@pytest.fixture(scope="module")
def heard():
    return read_along(variant(digits(), rounds=3, private=True, masked=True))


def test_a_plain_update_of_one_record_is_that_record(found):
    control = found["inversion-control"]
    assert control.verdict == "control"
    assert control.measured["victims"] == 4
    assert control.measured["correlation"] > 0.999


def numbers_in(value):
    """Every number of a JSON value, in its order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for each in value for number in numbers_in(each)]
    return [float(value)] if isinstance(value, int | float) else []


def pixels_shown(written, tables):
    """How many runs of eight pixels of labs' records stand in what was written, encoded or as they were."""
    said = np.round(numbers_in(json.loads(written)), 3)
    shown = {tuple(run) for run in np.lib.stride_tricks.sliding_window_view(said, 8)}
    rows = np.concatenate([np.round(table.features.astype(np.float64), 3) for table in tables])
    runs = np.lib.stride_tricks.sliding_window_view(np.concatenate([rows, 8 * rows + 8]), 8, axis=1).reshape(-1, 8)
    return len(shown & {tuple(run) for run in np.unique(runs, axis=0) if len(set(run) - {0.0, 1.0}) > 1})


def test_no_pixel_of_a_labs_record_is_in_what_the_attacks_write(found, heard):
    rows = [row.to_json() for row in found.values()]
    tables = list(heard.tables.values())
    assert pixels_shown(json.dumps(rows), tables) == 0
    with_a_record = [*rows, {"measured": {"original": tables[1].features[3].reshape(8, 8).tolist()}}]
    assert pixels_shown(json.dumps(with_a_record), tables) > 20


@pytest.mark.slow
def test_no_value_of_a_table_is_in_what_the_attacks_write(small_study):
    study = small_study(sites=4, rows=20, secure_aggregation={"min_survivors": 3})
    written = json.dumps([row.to_json() for row in inversion(study, seed=1, victims=8, most_rounds=2)])
    assert "inversion-sum" in written
    values = {float(value) for lab in labs_of(study).values() for value in lab.train.features.ravel()} - {0.0, 1.0}
    assert len(values) > 50
    assert not values & set(numbers_in(json.loads(written)))
    assert values & set(numbers_in([{"original": [min(values)]}]))


def test_under_its_mask_the_same_update_is_worse_than_a_guess(found):
    masked = found["inversion-masked"]
    assert masked.verdict == "holds"
    assert masked.measured["error_over_guess"]["low"] > 1
    assert masked.measured["correlation"] < 0.4 < masked.measured["correlation_of_guess"]


def test_a_sum_without_noise_hides_nothing_from_who_knows_the_others(found):
    assert found["inversion-sum"].verdict == "control"
    assert found["inversion-sum"].measured["correlation"] > 0.99


def test_noise_hides_a_record_even_from_who_knows_all_others(found):
    row = found["inversion"]
    assert row.verdict == "holds"
    assert row.measured["victims"] == 12
    assert row.measured["error_over_guess"]["low"] > 1
    assert "3 rounds" in row.attack
    assert [curve.name for curve in row.plot.curves] == ["without mask and noise", "as protected", "the best guess"]


@pytest.mark.slow
def test_without_its_noise_the_same_sum_gives_every_record_away(heard):
    """The attack on the noised sum is a strong one: the noise is all that is in its way."""
    plan = variant(digits(), rounds=3, private=True, masked=True).plan
    attacker = Attacker(plan=plan, heard=heard)
    victims = [(site, row) for site in attacker.sites for row in (0, 1)]
    assert attacker.knowing_all_others(victims, masked=True).error[1] > 1
    exact = {  # floats are taken for means, as where nothing masks them
        (site, number): attacker._computed(site, heard.tables[site], number) / heard.counts[site]
        for site, number in heard.hidden
    }
    quiet = replace(heard, hidden=exact)
    assert Attacker(plan=plan, heard=quiet).knowing_all_others(victims, masked=True).error[2] < 1e-3


def test_what_labs_masked_is_what_the_coordinator_opened(heard):
    study = variant(digits(), rounds=3, private=True, masked=True)
    attacker = Attacker(plan=study.plan, heard=heard)
    total = sum(attacker._unmasked(site, 1) for site in attacker.sites)
    mean = total / sum(heard.counts.values())
    moved = (heard.received[2] - heard.received[1]) / study.plan.training.learning_rate
    assert np.abs(moved - mean).max() < 1e-5
    assert np.abs(mean).max() > 1e-2


def test_an_upload_is_masked_on_the_line(heard):
    for key, upload in heard.uploads.items():
        assert upload.dtype == np.uint32
        plain = heard.hidden[key]
        small = np.abs(upload[: plain.size].view(np.int32)) < 2**28
        assert 0.06 < small.mean() < 0.2  # of numbers that could be anything, an eighth
        assert np.abs(plain).max() < 2**20


def test_the_quotient_of_many_rounds_is_the_record():
    rng = np.random.default_rng(2)
    record, parts = rng.uniform(-1, 1, 5), []
    for _ in range(3):
        slopes = rng.normal(size=4)
        parts.append(np.concatenate([np.outer(slopes, record).ravel(), slopes, rng.normal(size=7)]))
    assert np.allclose(rebuild(parts, units=4, inputs=5), record)
    assert not np.allclose(rebuild([part + 1 for part in parts], units=4, inputs=5), record, atol=0.1)
    assert (rebuild([np.zeros(24)], units=4, inputs=5) == 0).all()


def test_an_error_is_measured_against_the_guess():
    rng = np.random.default_rng(3)
    records = rng.uniform(-1, 1, (30, 8))
    guesses = np.zeros((30, 8))
    for found, expected in ((records, 1e-12), (guesses, 1.0), (-records, 4.0)):
        value, low, high = Rebuilt(records=records, found=found, guesses=guesses).error
        assert low - 1e-9 <= expected <= high + 1e-9
        assert value == pytest.approx(expected)
    assert Rebuilt(records=records, found=records, guesses=guesses).likeness(guesses) == 0


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["model={name: cnn, channels: [4]}"], "cnn"),
        (["strategy=one_shot_ridge", "training.rounds=1"], "not a plain update"),
        (["strategy=scaffold", "privacy.mechanism=none"], "not a plain update"),
    ],
)
def test_a_study_that_it_does_not_fit_says_so(overrides, reason):
    (row,) = inversion(digits(*overrides), seed=1)
    assert row.verdict == "not measured"
    assert reason in row.result


def test_an_opened_lab_keeps_its_data_and_spends_nothing_elsewhere():
    from fedsci.config.site import load_site

    study = digits()
    site = load_site(study.site_files[0])
    free = opened(site.model_copy(update={"ledger": "sqlite:///elsewhere"}), study.plan)
    assert free.datasets == site.datasets
    assert free.ledger is None
    assert free.folder == site.folder
    assert free.policy.mechanisms == ["distributed", "local", "none"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["model={name: mlp, hidden: [16]}", "privacy.clipping_norm=0.5"],
        [
            "strategy=fedavg",
            "privacy.mechanism=local",
            "secure_aggregation={enabled: false}",
            "training.local_epochs=1",
        ],
    ],
)
def test_other_models_and_mechanisms_are_attacked_alike(overrides):
    rows = {row.key: row for row in inversion(digits(*overrides), seed=1, victims=8)}
    assert rows["inversion-control"].verdict == "control"
    assert rows["inversion-masked"].verdict == "holds"
    assert rows["inversion"].verdict == "holds"


def test_a_variant_takes_away_what_it_is_asked_to():
    study = variant(digits("training.sample_rate=0.5"), rounds=1, private=False, masked=False)
    assert study.plan.training.rounds == 1
    assert study.plan.training.sample_rate == 1
    assert not study.plan.private
    assert not study.plan.study.secure_aggregation.enabled
    assert variant(digits(), rounds=2, private=True, masked=True).plan.study.privacy == digits().plan.study.privacy
