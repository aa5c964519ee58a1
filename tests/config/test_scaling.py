"""A study whose scaling is measured: what a file says, the two plans it becomes, and how they share the guarantee."""

import json

import pytest

from fedsci.config.plan_checks import check_plan, plan_from_bytes
from fedsci.config.scaling import by_the_bounds, on_its_own, pass_before, scaled, scaled_by_own
from fedsci.config.study import NumericColumn
from fedsci.config.study_file import load_study
from fedsci.errors import ConfigError

COLUMNS = {"a": {"min": 0, "max": 1}, "b": {"min": 0, "max": 1}, "scaling": "federated"}
FOUND = {"a": (0.25, 0.1), "b": (0.5, 0.2)}


@pytest.fixture
def asked(make_plan):
    return make_plan(features=COLUMNS, privacy={"mechanism": "local", "epsilon": 2.0, "delta": 1e-5})


def test_bounds_scale_unless_a_study_says_otherwise(make_plan, asked):
    assert not make_plan().awaits_scaling
    assert not make_plan(features=COLUMNS | {"scaling": "bounds"}).awaits_scaling
    assert asked.awaits_scaling
    assert list(asked.study.features) == ["a", "b"]


def test_a_column_may_be_called_scaling(make_plan):
    plan = make_plan(features={"scaling": {"min": 0, "max": 1}})
    assert not plan.awaits_scaling
    assert isinstance(plan.study.features["scaling"], NumericColumn)


@pytest.mark.parametrize(
    ("features", "line", "hint"),
    [
        (
            {"scaling": "fast", "a": {"min": 0, "max": 1}},
            "study.yaml line 7: features.scaling is 'fast'",
            "'bounds' or 'federated'",
        ),
        ({"scaling": "federated", "a": {"min": 0, "max": 1, "mean": 0.5, "deviation": 0.1}}, "nothing to measure", ""),
        ({"scaling": "federated", "a": {"categories": [1, 2]}}, "nothing to measure", "use scaling: bounds"),
        ({"a": {"min": 0, "max": 1, "mean": 0.5}}, "mean and deviation go together", "give both"),
        ({"a": {"min": 0, "max": 1, "mean": 2, "deviation": 0.1}}, "mean 2 is not within 0 to 1", "public mean"),
        ({"a": {"min": 0, "max": 1, "mean": 0.5, "deviation": 3}}, "deviation 3 is not possible", "smaller"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_with_what_would_be_right(write_study, features, line, hint):
    with pytest.raises(ConfigError) as refused:
        load_study(write_study(features=features))
    assert line in refused.value.message
    assert hint in refused.value.hint


def test_nobody_writes_what_measured_the_scaling(write_study, make_lab):
    by = {"plan": "sha256:0", "columns": ["a"], "epsilon": 0.1, "delta": 1e-6}
    with pytest.raises(ConfigError, match="scaled_by"):
        load_study(write_study(scaled_by=by, sites=[str(make_lab(n)) for n in (1, 2, 3)]))


def test_a_strategy_of_one_exchange_takes_numbers_as_bounds_scale_them(make_plan):
    for features in (COLUMNS, {"a": {"min": 0, "max": 1, "mean": 0.5, "deviation": 0.1}}):
        plan = make_plan(strategy="feature_statistics", training={"rounds": 1}, features=features)
        with pytest.raises(ConfigError, match="as their bounds scale them"):
            check_plan(plan)


def test_the_pass_measures_for_the_same_sites_and_columns_and_nothing_else(asked):
    first = pass_before(asked)
    assert (first.study.study, first.recipe.name, first.training.rounds) == ("tiny.scaling", "feature_statistics", 1)
    assert first.sites == asked.sites
    assert (first.study.dataset, first.study.seed, first.study.task) == ("points", 3, asked.study.task)
    assert first.study.features == asked.study.features
    assert not first.lab_models
    assert first.study.evaluation.holdout == asked.study.evaluation.holdout
    assert plan_from_bytes(first.to_bytes()).digest == first.digest


@pytest.mark.parametrize("name", ["a" * 64, "a" * 55 + "-" + "b" * 8])
def test_the_pass_has_a_name_however_long_the_studys_is(make_plan, name):
    first = pass_before(make_plan(study=name, features=COLUMNS))
    assert plan_from_bytes(first.to_bytes()).study.study.endswith("a.scaling")


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_the_two_share_epsilon_and_delta(make_plan, share):
    privacy = {"mechanism": "local", "epsilon": 2.0, "delta": 1e-5, "scaling_share": share}
    plan = make_plan(features=COLUMNS, privacy=privacy)
    first = pass_before(plan)
    second = scaled(plan, first, FOUND)
    assert first.study.privacy.epsilon == pytest.approx(2.0 * share)
    assert first.study.privacy.delta == pytest.approx(1e-5 * share)
    assert second.study.privacy.epsilon == pytest.approx(2.0 * (1 - share))
    assert second.whole_privacy == pytest.approx((2.0, 1e-5))


def test_without_privacy_nothing_is_shared(make_plan):
    plan = make_plan(features=COLUMNS, privacy={"mechanism": "none", "epsilon": None})
    second = scaled(plan, pass_before(plan), FOUND)
    assert second.study.privacy == plan.study.privacy
    assert second.study.scaled_by.epsilon is None


def test_the_plans_digest_covers_the_numbers_and_who_measured_them(asked):
    first = pass_before(asked)
    one, other = (scaled(asked, first, FOUND | {"a": (0.25, spread)}) for spread in (0.1, 0.1000001))
    assert len({asked.digest, one.digest, other.digest}) == 3
    again = plan_from_bytes(one.to_bytes())
    assert again.digest == one.digest
    assert again.study.features["a"].mean == 0.25
    assert again.study.scaled_by.plan == first.digest
    assert not again.awaits_scaling
    tampered = json.loads(one.to_bytes())
    tampered["study"]["features"]["a"]["mean"] = 0.3
    assert plan_from_bytes(json.dumps(tampered).encode()).digest != one.digest


def test_numbers_that_the_file_gives_are_kept_and_not_measured(make_plan):
    known = {"min": 0, "max": 1, "mean": 0.7, "deviation": 0.3}
    plan = make_plan(features=COLUMNS | {"b": known})
    first = pass_before(plan)
    second = scaled(plan, first, FOUND)
    assert second.study.scaled_by.columns == ["a"]
    assert (second.study.features["b"].mean, second.study.features["b"].deviation) == (0.7, 0.3)
    assert first.study.features["b"].mean is None  # the pass reads all numbers as bounds scale them


def test_a_regressions_target_is_measured_too(make_plan):
    task = {"kind": "regression", "target": "above", "min": 0, "max": 10}
    plan = make_plan(features=COLUMNS, task=task)
    assert plan.study.unmeasured == ("a", "b", "above")
    second = scaled(plan, pass_before(plan), FOUND | {"above": (4.0, 2.0)})
    assert (second.study.task.mean, second.study.task.deviation) == (4.0, 2.0)


def test_who_does_not_join_has_no_part_in_what_was_measured(asked):
    second = scaled(asked, pass_before(asked), FOUND)
    alone = on_its_own(second)
    assert alone.study.privacy.epsilon == pytest.approx(2.0)
    assert alone.study.features == asked.study.features
    assert not alone.awaits_scaling
    own = scaled_by_own(second, {"a": (0.3, 0.2), "c": (0, 1)})
    assert (own.study.features["a"].mean, own.study.features["b"].mean) == (0.3, None)
    assert on_its_own(alone) is alone


def test_numbers_that_stand_for_measured_ones_fit_every_column(asked):
    assert scaled(asked, pass_before(asked), by_the_bounds(asked)).study.features["a"].deviation == 0.5


def test_where_whole_sites_are_hidden_nothing_is_measured(make_plan):
    privacy = {"mechanism": "distributed", "unit": "site", "epsilon": 2.0, "colluding_sites": 1}
    with pytest.raises(ConfigError, match="hides whole sites"):
        pass_before(make_plan(features=COLUMNS, privacy=privacy))
