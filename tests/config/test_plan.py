"""The plan's numbers, its digest, and what comes back from bytes."""

import contextlib
import json
from copy import deepcopy

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fedsci.config.masking import terms_for
from fedsci.config.plan import default_survivors
from fedsci.config.plan_checks import check_plan, plan_from_bytes
from fedsci.config.scaling import pass_before
from fedsci.errors import ConfigError
from fedsci.names import digest


@pytest.fixture(scope="module")
def plain():
    """A plan's values with every optional section written out."""
    return {
        "plan_version": 1,
        "study": {
            "study": "tiny", "question": "?", "dataset": "points", "task": {"kind": "binary", "target": "y"},
            "features": {"a": {"min": 0.0, "max": 1.0}, "c": {"categories": [1, 2], "unseen": "other"}},
            "missing": "drop", "model": {"name": "mlp", "hidden": [3], "channels": []}, "strategy": "fedavg",
            "training": {"rounds": 3, "sample_rate": 0.5, "learning_rate": 0.1, "momentum": 0.5, "local_epochs": 2,
                         "batch_size": 8},
            "privacy": {"unit": "record", "mechanism": "local", "epsilon": 2.0, "delta": 1e-5, "clipping_norm": 1.0,
                        "colluding_sites": 1},
            "secure_aggregation": {"enabled": False, "min_survivors": 2},
            "evaluation": {"holdout": 0.25, "metrics": ["accuracy"], "baselines": ["local"], "every": 2}, "seed": 7,
        },
        "strategy": {
            "name": "fedavg", "sees": "sum", "paper": "p", "when": "w",
            "server_optimiser": {"kind": "adam", "learning_rate": 0.5, "momentum": 0.25, "beta_1": 0.9,
                                 "beta_2": 0.99, "tau": 0.001},
            "training": {"rounds": 5, "sample_rate": 0.25, "learning_rate": 0.2, "momentum": 0.125,
                         "local_epochs": 3, "batch_size": 16},
            "private_learning_rate": {"per_epsilon": 0.33, "most": 2.5},
        },
        "feature_order": ["c", "a"],
        "sites": ["lab-1", "lab-2", "lab-3"],
    }  # fmt: skip


def from_values(values):
    return plan_from_bytes(json.dumps(values).encode())


def leaves(values, path=()):
    if isinstance(values, dict):
        for key, value in values.items():
            yield from leaves(value, (*path, key))
    elif isinstance(values, list) and values:
        for number, value in enumerate(values):
            yield from leaves(value, (*path, number))
    elif not isinstance(values, list):
        yield path, values


OTHER = {
    ("study", "task", "kind"): None,
    ("study", "model", "name"): None,
    ("study", "privacy", "unit"): None,
    ("study", "privacy", "mechanism"): "none",
    ("study", "secure_aggregation", "enabled"): None,
    ("study", "missing"): "impute",
    ("study", "features", "c", "unseen"): "refuse",
    ("study", "evaluation", "metrics", 0): "auroc",
    ("study", "evaluation", "baselines", 0): "pooled",
    ("study", "strategy"): "dp_fedsgd",
    ("strategy", "name"): "dp_fedsgd",
    ("strategy", "sees"): None,
    ("strategy", "server_optimiser", "kind"): "sgd",
    ("sites", 0): "lab-0",
    ("plan_version",): None,
}
"""Another legal value where a number or letter more is none; None where only one value is legal."""


def test_every_value_changes_the_digest(plain):
    first = from_values(plain).digest
    seen = {first}
    for path, value in leaves(plain):
        other = OTHER.get(path, value + "x" if isinstance(value, str) else value / 2 if value == 0.99 else None)
        if path not in OTHER and other is None:
            other = value + 1 if isinstance(value, int) else value * 0.75 if value else -1.0
        if other is None or path[0] == "feature_order":
            continue
        values = deepcopy(plain)
        section = values
        for key in path[:-1]:
            section = section[key]
        section[path[-1]] = other
        found = from_values(values).digest
        assert found not in seen, path
        seen.add(found)
    assert len(seen) > 40


def test_the_order_of_features_is_part_of_the_study(plain):
    assert list(from_values(plain).study.features) == ["c", "a"]
    other = from_values(plain | {"feature_order": ["a", "c"]})
    assert list(other.study.features) == ["a", "c"]
    assert other.digest != from_values(plain).digest


@pytest.mark.parametrize("order", [["a"], ["a", "c", "c"], ["a", "b"], [], ["a", 1], None, 3])
def test_an_order_of_other_features_is_refused(plain, order):
    with pytest.raises(ConfigError):
        from_values(plain | {"feature_order": order})


def test_a_plan_comes_back_from_its_bytes(plain, make_plan):
    for plan in (from_values(plain), make_plan()):
        again = plan_from_bytes(plan.to_bytes())
        assert again.to_bytes() == plan.to_bytes()
        assert again.digest == plan.digest == digest(plan.to_bytes())


def test_the_bytes_are_canonical_json(make_plan):
    content = make_plan(question="Ünï?").to_bytes()
    values = json.loads(content)
    assert content == json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def test_the_digest_is_that_of_the_bytes_and_nothing_else(plain):
    shuffled = {key: plain[key] for key in reversed(plain)}
    assert from_values(shuffled).digest == from_values(plain).digest


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def only_a_config_error(content: bytes) -> None:
    with contextlib.suppress(ConfigError):
        plan = plan_from_bytes(content)
        assert plan_from_bytes(plan.to_bytes()).digest == plan.digest


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
@example(b"")
@example(b"{}")
@example(b"[]")
@example(b"null")
@example(b"\xff")
@example(b"[" * 100_000)
@example(b'{"plan_version":1}')
@example(b'{"plan_version":1,"study":null,"strategy":null,"sites":null}')
def test_garbage_is_refused_as_a_config_error(content):
    only_a_config_error(content)


@pytest.mark.slow
@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_plan_with_any_value_replaced_is_a_plan_or_a_config_error(plain, data):
    values = deepcopy(plain)
    paths = [path[:depth] for path, _ in leaves(plain) for depth in range(1, len(path) + 1)]
    path = data.draw(st.sampled_from(sorted(set(paths), key=str)))
    section = values
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = data.draw(json_values)
    only_a_config_error(json.dumps(values).encode())


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (["plan_version"], 2, "plan version 2 is not known"),
        (["plan_version"], "1", "plan version '1' is not known"),
        (["sites"], [], "the study has no sites"),
        (["sites"], ["a", "a"], "in the cohort twice"),
        (["sites"], ["../a"], "not usable"),
        (["sites"], [3], "cannot be read"),
        (["sites"], "abc", "cannot be read"),
        (["sites"], {"a": 1, "b": 2}, "cannot be read"),
        (["sites"], ["b", "a", "c"], "cannot be read"),
        (["strategy", "name"], "fedmagic", "'fedmagic' does not exist"),
        (["strategy", "server_optimiser", "momentum"], 1.5, "cannot be read"),
        (["strategy", "server_optimiser", "tau"], 0, "cannot be read"),
        (["study", "nonsense"], 1, "cannot be read"),
        (["study", "privacy", "epsilon"], 0, "cannot be read"),
        (["study", "secure_aggregation", "min_survivors"], 4, "min_survivors is 4"),
        (["study", "question"], "\ud800", "not Unicode"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(plain, path, value, text):
    values = deepcopy(plain)
    section = values
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    with pytest.raises(ConfigError, match=text):
        from_values(values)


def test_the_studys_numbers_win_over_the_recipes_and_those_over_ours(make_plan):
    recipe = {"training": {"rounds": 5, "batch_size": 8, "momentum": 0.5}}
    training = make_plan(recipe=recipe, training={"rounds": 2, "momentum": 0.0}).training
    assert (training.rounds, training.batch_size, training.momentum) == (2, 8, 0.0)
    assert (training.local_epochs, training.sample_rate) == (1, 1.0)


def test_a_round_waits_an_hour_unless_the_study_says_otherwise(make_plan):
    assert make_plan().training.round_deadline_s == 3600
    waits = make_plan(training={"round_deadline_s": 90})
    assert waits.training.round_deadline_s == 90
    assert waits.digest != make_plan().digest  # sites agree to it with the rest


def test_a_gradient_strategy_takes_the_studys_learning_rate_and_momentum(make_plan):
    optimiser = make_plan(training={"learning_rate": 0.3, "momentum": 0.6}).strategy.optimiser
    assert (optimiser.learning_rate, optimiser.momentum) == (0.3, 0.6)


RULE = {"training": {"learning_rate": 0.5}, "private_learning_rate": {"per_epsilon": 0.25, "most": 2.5}}


@pytest.mark.parametrize(("epsilon", "rate"), [(0.5, 0.125), (1.0, 0.25), (4.0, 1.0), (10.0, 2.5), (50.0, 2.5)])
def test_under_privacy_the_learning_rate_follows_epsilon(make_plan, epsilon, rate):
    plan = make_plan(recipe=RULE, training={"learning_rate": None}, privacy={"mechanism": "local", "epsilon": epsilon})
    assert plan.training.learning_rate == rate == plan.strategy.optimiser.learning_rate
    assert plan.without_privacy().strategy.optimiser.learning_rate == 0.5


def test_the_studys_learning_rate_wins_over_the_rule(make_plan):
    private = {"mechanism": "local", "epsilon": 1.0}
    assert make_plan(recipe=RULE, training={"learning_rate": 0.7}, privacy=private).training.learning_rate == 0.7


def test_without_privacy_the_rule_does_not_apply(make_plan):
    assert (
        make_plan(recipe=RULE, training={"learning_rate": None}, privacy={"mechanism": "none"}).training.learning_rate
        == 0.5
    )


def test_a_local_strategy_leaves_them_to_the_sites(make_plan):
    optimiser = make_plan(strategy="fedavg", training={"learning_rate": 0.3, "momentum": 0.6}).strategy.optimiser
    assert (optimiser.learning_rate, optimiser.momentum) == (1.0, 0.0)


def test_a_recipes_server_optimiser_wins(make_plan):
    spec = {"kind": "adam", "learning_rate": 0.02, "beta_1": 0.8}
    optimiser = make_plan(recipe={"server_optimiser": spec}).strategy.optimiser
    assert (optimiser.kind, optimiser.learning_rate, optimiser.beta_1) == ("adam", 0.02, 0.8)


@pytest.mark.parametrize(
    ("strategy", "epochs", "rate", "steps"),
    [("dp_fedsgd", 3, 0.1, 1), ("fedavg", 1, 1.0, 1), ("fedavg", 2, 0.25, 8), ("fedavg", 1, 0.9, 1)],
)
def test_steps_of_a_round(make_plan, strategy, epochs, rate, steps):
    plan = make_plan(strategy=strategy, training={"local_epochs": epochs, "sample_rate": rate})
    assert plan.steps_per_round == steps


@given(st.integers(1, 200))
def test_the_default_majority_is_more_than_two_thirds_and_can_be_met(sites):
    survivors = default_survivors(sites)
    assert survivors <= sites
    assert survivors * 3 > 2 * sites


def test_the_metrics_are_the_tasks_unless_named(make_plan):
    assert make_plan().metrics == ("accuracy", "auroc", "log_loss", "balanced_accuracy", "calibration_error")
    assert make_plan(evaluation={"metrics": ["auroc"]}).metrics == ("auroc",)


def test_a_sound_plan_passes(make_plan):
    check_plan(make_plan())
    assert make_plan().private
    assert not make_plan(privacy={"mechanism": "none", "epsilon": None}).private


def test_metrics_that_are_never_noised_need_one_beside_them_that_can_be(make_plan):
    exact = ["balanced_accuracy", "calibration_error"]
    with pytest.raises(ConfigError, match="cannot be measured with noise") as refused:
        check_plan(make_plan(evaluation={"metrics": exact}))
    assert refused.value.hint == "list accuracy as well"
    check_plan(make_plan(evaluation={"metrics": [*exact, "auroc"]}))
    check_plan(make_plan(evaluation={"metrics": exact}, privacy={"mechanism": "none", "epsilon": None}))


def test_a_personal_model_is_asked_for_by_name_or_with_its_numbers(make_plan):
    assert make_plan().lab_models == ("local", "local_no_dp")
    short = make_plan(personalise="ditto")
    assert short.lab_models == ("local", "local_no_dp", "personalised")
    assert plan_from_bytes(short.to_bytes()) == short
    assert short == make_plan(personalise={"method": "ditto"})
    with pytest.raises(ValueError, match="proximal goes with method: ditto"):
        make_plan(personalise={"method": "fine_tune", "proximal": 0.1})


def grouped(make_plan, *, sites, survivors, groups=3, **options):
    recipe = {"options": {"groups": groups} | options}
    masked = {"enabled": True, "min_survivors": survivors}
    return make_plan(sites=sites, strategy="coordinate_median", recipe=recipe, secure_aggregation=masked)


@pytest.mark.parametrize(
    ("sites", "survivors", "groups", "left"), [(9, 7, 3, 1), (9, 6, 3, 0), (5, 5, 3, 1), (8, 6, 3, 0)]
)
def test_a_group_that_could_be_one_site_is_refused_where_updates_are_masked(make_plan, sites, survivors, groups, left):
    plan = grouped(make_plan, sites=sites, survivors=survivors, groups=groups)
    with pytest.raises(ConfigError, match=f"may stand for {left} of them: one site's update, or none") as refused:
        check_plan(plan)
    assert "min_survivors" in refused.value.hint
    with pytest.raises(ConfigError, match="may stand for"):
        plan_from_bytes(plan.to_bytes())


@pytest.mark.parametrize(("sites", "survivors", "corrupt"), [(17, 17, 3), (17, 15, 1), (9, 8, 0), (6, 6, 0)])
def test_a_group_holds_against_fewer_colluding_sites_than_the_whole(make_plan, sites, survivors, corrupt):
    plan = grouped(make_plan, sites=sites, survivors=survivors)
    check_plan(plan)
    assert plan.smallest_sum >= 2
    assert terms_for(plan).corrupt == corrupt, "two honest sites stay in every group"


def test_the_sum_of_all_is_the_survivors(make_plan):
    assert make_plan(sites=17).smallest_sum == 12


def test_an_algorithm_that_is_another_optimiser_than_the_recipe_says_is_refused(make_plan):
    with pytest.raises(ConfigError, match="the recipe's server optimiser is sgd, fedyogi is another") as refused:
        check_plan(make_plan(strategy="fedyogi"))
    assert "kind: yogi" in refused.value.hint
    check_plan(make_plan(strategy="fedyogi", recipe={"server_optimiser": {"kind": "yogi"}}))


def test_too_few_rows_for_the_bad_ones_are_refused(make_plan):
    recipe = {"sees": "each", "options": {"byzantine": 3}}
    plan = make_plan(sites=8, strategy="krum", recipe=recipe, secure_aggregation={"enabled": False})
    with pytest.raises(ConfigError, match="krum cannot stand 3 bad of 6 rows") as refused:
        check_plan(plan)
    assert "byzantine: 1 or fewer" in refused.value.hint


NORMALISED = {"model": {"name": "mlp", "hidden": [4], "normalisation": "batch"}, "privacy": {"mechanism": "none"}}


@pytest.mark.parametrize(
    ("changes", "text", "hint"),
    [
        ({"strategy": "fedavg", "privacy": {"mechanism": "local"}}, "mixes records", "privacy.mechanism: none"),
        ({"strategy": "fedbn", "privacy": {"mechanism": "local"}}, "mixes records", "model.normalisation: none"),
        ({"strategy": "dp_fedsgd", "privacy": {"mechanism": "distributed"}}, "mixes records", "none"),
        (
            {"strategy": "fedavg", "privacy": {"mechanism": "distributed", "unit": "site", "colluding_sites": 0}},
            "mixes records",
            "none",
        ),
        ({"strategy": "dp_fedsgd"}, "must be averaged", "fedavg, fedprox or fedbn"),
        ({"strategy": "scaffold"}, "must be averaged", "model.normalisation: none"),
        ({"strategy": "fednova"}, "must be averaged", "fedbn"),
        ({"strategy": "fedbuff"}, "must be averaged", "fedbn"),
        ({"strategy": "fedavg", "training": {"batch_size": 1}}, "batch_size is 1", "2 or more"),
        ({"strategy": "fedbn", "training": {"batch_size": 1}}, "batch_size is 1", "2 or more"),
        ({"strategy": "fedbn", "model": {"normalisation": "none"}}, "the model has none", "normalisation: batch"),
    ],
)
def test_normalisation_that_cannot_be_is_refused(make_plan, changes, text, hint):
    both = {key: NORMALISED.get(key, {}) | changes.get(key, {}) for key in ("model", "privacy")}
    plan = make_plan(**changes | both)
    with pytest.raises(ConfigError, match=text) as refused:
        check_plan(plan)
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    "optimiser", [{"momentum": 0.9}, {"learning_rate": 1.5}, {"kind": "adam"}], ids=["momentum", "overshoots", "adam"]
)
def test_running_statistics_are_averaged_by_the_coordinator_or_kept_by_the_labs(make_plan, optimiser):
    recipe = {"server_optimiser": optimiser}
    with pytest.raises(ConfigError, match="must be averaged"):
        check_plan(make_plan(strategy="fedavg", recipe=recipe, **NORMALISED))
    check_plan(make_plan(strategy="fedbn", recipe=recipe, **NORMALISED))


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "fedbn"])
def test_a_study_with_normalisation_passes(make_plan, strategy):
    plan = make_plan(strategy=strategy, **NORMALISED)
    check_plan(plan)
    assert plan_from_bytes(plan.to_bytes()).study.model.normalised == 16


def test_a_pass_that_measures_scaling_has_the_models_of_the_study(make_plan):
    plan = make_plan(strategy="fedbn", scaling="federated", **NORMALISED)
    assert pass_before(plan).study.model == plan.study.model


def test_a_plan_without_normalisation_is_as_it_was_before_there_was_any(make_plan):
    plain = make_plan(model={"name": "mlp", "hidden": [4]})
    assert plain.to_json()["study"]["model"] == {"name": "mlp", "hidden": [4], "channels": []}
    assert make_plan(model={"name": "mlp", "hidden": [4], "normalisation": "none"}).digest == plain.digest
    assert make_plan(model={"name": "mlp", "hidden": [4], "normalisation": "batch"}).digest != plain.digest


BY_SPEED = {"pace": "by_speed"}
NONE = {"mechanism": "none", "epsilon": None}


def test_sites_train_at_an_even_pace_unless_the_study_says_otherwise(make_plan):
    assert (make_plan().training.pace, make_plan().by_speed, make_plan().needs_clock) == ("even", False, None)
    paced = make_plan(strategy="fednova", training=BY_SPEED, privacy=NONE)
    check_plan(paced)
    assert paced.by_speed
    assert "training.pace: by_speed" in paced.needs_clock
    assert paced.digest != make_plan(strategy="fednova", privacy=NONE).digest


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strategy": "fedavg"}, "lets fast sites take more steps, and fedavg would follow them"),
        ({"strategy": "scaffold"}, "scaffold would follow them"),
        ({"strategy": "fedbuff"}, "fedbuff would follow them"),
        ({"strategy": "dp_fedsgd"}, "dp_fedsgd would follow them"),
        ({"privacy": {"mechanism": "local", "epsilon": 4.0}}, "privacy.mechanism: none only: each private step"),
    ],
)
def test_steps_by_speed_that_would_move_the_optimum_or_the_price_are_refused(make_plan, changes, words):
    with pytest.raises(ConfigError, match=words) as refused:
        check_plan(make_plan(**{"strategy": "fednova", "training": BY_SPEED, "privacy": NONE} | changes))
    assert refused.value.hint


def test_a_buffer_waits_for_as_many_as_must_finish_or_as_the_recipe_says(make_plan):
    masked = {"secure_aggregation": {"min_survivors": 12}}
    plan = make_plan(sites=17, strategy="fedbuff", privacy=NONE, **masked)
    check_plan(plan)
    assert (plan.buffer, plan.smallest_sum, plan.min_survivors) == (12, 3, 12)
    assert "fedbuff sums whoever has finished" in plan.needs_clock
    assert terms_for(plan).corrupt == 1, "of any model two honest sites are in a sum"
    larger = {"name": "fedbuff", "options": {"buffer": 14, "together": 4}}
    plan = make_plan(sites=17, strategy="fedbuff", recipe=larger, privacy=NONE, **masked)
    assert (plan.buffer, plan.smallest_sum) == (14, 4)
    assert make_plan().buffer is None


@pytest.mark.parametrize(
    ("options", "masked", "words"),
    [
        ({"buffer": 11}, True, "a buffer of 11 is not between min_survivors, 12, and the 17 sites"),
        ({"buffer": 18}, False, "a buffer of 18 is not between"),
        ({"together": 1}, True, "may show its update to a coordinator that cheats"),
        ({"together": 13}, True, "13 sites of a buffer must have one model, and it may hold 12"),
    ],
)
def test_a_buffer_that_cannot_be_is_refused(make_plan, options, masked, words):
    recipe = {"name": "fedbuff", "options": options}
    secure = {"enabled": masked, "min_survivors": 12}
    with pytest.raises(ConfigError, match=words):
        check_plan(make_plan(sites=17, strategy="fedbuff", recipe=recipe, privacy=NONE, secure_aggregation=secure))


def test_in_the_clear_a_site_may_be_alone_with_its_model(make_plan):
    recipe = {"name": "fedbuff", "options": {"together": 1}}
    check_plan(make_plan(strategy="fedbuff", recipe=recipe, privacy=NONE, secure_aggregation={"enabled": False}))


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        ("site", "shares the noise of plain contributions, and fedbuff sends others"),
        ("record", "fedbuff trains locally"),
    ],
)
def test_shares_of_noise_are_not_weighted_by_age(make_plan, unit, words):
    privacy = {"mechanism": "distributed", "epsilon": 4.0, "unit": unit, "colluding_sites": 1}
    masked = {"enabled": True, "min_survivors": 4}
    with pytest.raises(ConfigError, match=words):
        check_plan(make_plan(sites=5, strategy="fedbuff", privacy=privacy, secure_aggregation=masked))
