"""What many of a lab's records have in common: told by an update in the open, and how well by sums."""

import numpy as np
import pytest

from fedsci.config.shipped import shipped
from fedsci.config.study_file import load_study
from fedsci.redteam.property import Count, Told, counted, findings, most_right, property_inference
from fedsci.redteam.world import Means, World

LABS = "sites=[../../sites/lab-01.yaml, ../../sites/lab-02.yaml, ../../sites/lab-04.yaml, ../../sites/lab-06.yaml]"
SMALL = [LABS, "secure_aggregation={min_survivors: 3}", "privacy.colluding_sites=1", "training.rounds=2"]


def load(*overrides, name="digits"):
    return load_study(shipped("examples") / name / "study.yaml", overrides=[*SMALL, *overrides])


@pytest.fixture(scope="module")
def found():
    """Little noise, so that sixteen cohorts tell one view from another whatever the noise of the day is."""
    return {row.key: row for row in property_inference(load("privacy.epsilon=20"), seed=1, cohorts=16)}


def test_an_update_in_the_open_tells_what_its_records_are(found):
    control = found["property-control"]
    assert control.verdict == "control"
    assert control.measured["auc"]["low"] > 0.75
    assert control.measured["share_rmse"] < 0.1


def test_what_is_not_promised_is_not_claimed(found):
    assert list(found) == ["property-control", "property-sum", "property", "property-known-others"]
    for key in ("property-sum", "property", "property-known-others"):
        assert found[key].verdict in ("not protected", "not measured")
        assert found[key].claim.startswith("None: ")
    measured = {key: row.measured["share_rmse"] for key, row in found.items()}
    assert measured["property"] > 1.5 * measured["property-known-others"]  # what others hold hides a lab best


def test_the_plot_shows_every_view_beside_the_truth(found):
    plot = found["property"].plot
    assert len(plot.curves) == 5
    assert plot.curves[-1].name == "the truth"
    assert all(len(curve.points) == 16 and np.isfinite(curve.points).all() for curve in plot.curves[:4])


@pytest.fixture(scope="module")
def world():
    return World.of(load("privacy.epsilon=5"), np.random.default_rng(4))


def test_an_unusual_lab_differs_from_others_in_nothing_else(world):
    rng = np.random.default_rng(5)
    share = {True: [], False: []}
    for unusual in (True, False):
        for _ in range(60):
            tables = world.draw(unusual=unusual, rng=rng)
            assert [table.rows for table in tables] == list(world.sizes)
            of = [float((world.kinds_of(table) == world.kind).mean()) for table in tables]
            share[unusual].append([of[world.victim], np.mean(np.delete(of, world.victim))])
    usual, unusual = np.mean(share[False], 0), np.mean(share[True], 0)
    assert usual == pytest.approx([world.usual, world.usual], abs=0.02)
    assert unusual == pytest.approx([world.unusual, world.usual], abs=0.03)


def test_the_attacker_has_none_of_the_records_that_labs_draw(world):
    assert world.known.rows + world.held.rows == sum(table.rows for table in (world.known, world.held))
    ours = {row.tobytes() for row in world.held.features}
    assert not any(row.tobytes() in ours for row in world.known.features)


def test_kinds_are_counted_by_least_squares(world):
    means, rng = Means(world=world, plan=world.plan), np.random.default_rng(1)
    truth, count = np.arange(10.0), Count(means, 45)
    wrong = Count(means, None)
    for _ in range(3):
        columns = rng.normal(size=(40, 10))
        count.add(columns @ truth, columns)
        wrong.add(columns @ (truth + 5), columns)
    assert count.result() == pytest.approx(truth[means.place])
    assert wrong.result() != pytest.approx(truth[means.place], abs=1)


@pytest.mark.slow
def test_who_knows_all_others_is_left_with_the_lab_and_the_noise(world):
    tables = world.draw(unusual=True, rng=np.random.default_rng(6))
    truth = float((world.kinds_of(tables[world.victim]) == world.kind).sum())
    seen = [counted(world, tables) for _ in range(8)]
    known = np.array([each["property-known-others"] for each in seen])
    assert known.std() > 0
    assert abs(known.mean() - truth) < 4 * known.std() / np.sqrt(8) + 0.25 * truth
    assert {each["property-control"] for each in seen} == {seen[0]["property-control"]}  # no noise in it


def told(area, rows=40):
    unusual = np.arange(rows) % 2 == 0
    noise = np.random.default_rng(1).normal(size=rows)
    return Told(shares=noise + area * unusual, truth=unusual * 0.5, unusual=unusual)


def test_a_weak_control_is_no_evidence(world):
    for key, row in {r.key: r for r in findings(world, {"property-control": told(0), "property": told(3)})}.items():
        assert row.verdict == "not measured", key
        assert "even in the open" in row.result
    strong = {r.key: r for r in findings(world, {"property-control": told(9), "property": told(0)})}
    assert strong["property"].verdict == "not measured"
    assert "not promised" in strong["property"].result


@pytest.mark.parametrize(("shift", "epsilon", "verdict"), [(9, 0.1, "broken"), (0, 0.1, "holds"), (9, 8, "holds")])
def test_where_whole_labs_are_protected_epsilon_judges(shift, epsilon, verdict):
    study = load("privacy.unit=site", "strategy=fedavg", f"privacy.epsilon={epsilon}")
    small = World.of(study, np.random.default_rng(1))
    rows = {r.key: r for r in findings(small, {"property-control": told(9), "property": told(shift)})}
    assert rows["property"].verdict == verdict
    assert most_right(epsilon=0.1, delta=0) == pytest.approx(1 / (1 + np.exp(-0.2)))


@pytest.mark.slow
def test_noise_for_whole_labs_hides_a_lab():
    rows = {row.key: row for row in property_inference(load("privacy.unit=site", "strategy=fedavg"), seed=2, cohorts=8)}
    assert list(rows) == ["property-control", "property-sum", "property"]
    assert rows["property"].verdict in ("holds", "not measured")
    assert rows["property"].claim.startswith("What a lab's records")


@pytest.mark.slow
def test_labs_that_are_noised_one_by_one_are_seen_one_by_one_without_masks():
    study = load("privacy.mechanism=local", "secure_aggregation={enabled: false}")
    rows = {row.key: row for row in property_inference(study, seed=2, cohorts=6)}
    assert list(rows) == ["property-control", "property-sum", "property"]
    assert "one lab's updates" in rows["property"].attack


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["strategy=scaffold", "privacy.mechanism=none"], "not a plain update"),
        (["strategy=feature_statistics", "training.rounds=1"], "no model"),
    ],
)
def test_a_study_that_it_does_not_fit_says_so(overrides, reason):
    (row,) = property_inference(load(*overrides), seed=1)
    assert row.verdict == "not measured"
    assert reason in row.result


def test_of_a_regression_kinds_are_halves():
    world = World.of(load(name="diabetes"), np.random.default_rng(1))
    assert world.middle is not None
    assert world.usual == pytest.approx(0.5, abs=0.15)
    assert "above the median" in world.kind_in_words
