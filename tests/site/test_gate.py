"""Each rule of the gate, one by one; a plan that keeps them all passes."""

import pytest

from fedsci.config.site import load_site
from fedsci.errors import PolicyRefused
from fedsci.site.gate import check_cost, check_delta, check_policy


@pytest.fixture
def site_with(make_lab):
    return lambda **changes: load_site(make_lab(**changes))


def refusal(plan, site) -> PolicyRefused:
    with pytest.raises(PolicyRefused) as refused:
        check_policy(plan, site)
    error = refused.value
    assert error.message.startswith(f"{site.site}: ")
    assert error.hint
    assert error.public_message == error.message.removeprefix(f"{site.site}: ")
    return error


def test_a_plan_that_keeps_every_rule_passes(make_plan, site_with):
    site = site_with()
    assert check_policy(make_plan(), site) is site.policy


def test_no_policy_is_no(make_plan, site_with):
    site = site_with(policy={"approval": "auto"}).model_copy(update={"policy": None})
    assert "it has no policy, so nothing may run" in refusal(make_plan(), site).message


def test_an_empty_policy_is_no(make_plan, tmp_path):
    file = tmp_path / "lab-1.yaml"
    file.write_text("site: lab-1\ndatasets: {points: {path: x.csv}}\npolicy: {}\n")
    refusal(make_plan(), load_site(file))


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        ({"approval": "manual"}, "policy.approval: manual"),
        ({"approval": None}, "policy.approval: manual"),
        ({"min_cohort": 4}, "the sum may stand for only 3 sites, policy.min_cohort is 4"),
        ({"strategies": ["fedavg"]}, "policy.strategies does not allow 'dp_fedsgd'"),
        ({"strategies": []}, "policy.strategies does not allow 'dp_fedsgd'"),
        ({"strategies": None}, "policy.strategies does not allow 'dp_fedsgd'"),
        ({"models": ["mlp"]}, "policy.models does not allow 'linear'"),
        ({"models": None}, "policy.models does not allow 'linear'"),
        ({"mechanisms": ["distributed"]}, "policy.mechanisms does not allow 'local'"),
    ],
)
def test_what_the_policy_does_not_name_is_refused(make_plan, site_with, policy, text):
    assert text in refusal(make_plan(), site_with(policy=policy)).message


def test_few_survivors_are_a_small_cohort_whatever_the_number_of_sites(make_plan, site_with):
    plan = make_plan(sites=17, secure_aggregation={"min_survivors": 2})
    error = refusal(plan, site_with(policy={"min_cohort": 3}))
    assert "only 2 sites, policy.min_cohort is 3" in error.message
    check_policy(plan, site_with(policy={"min_cohort": 2}))


def test_a_site_that_was_not_asked_refuses(make_plan, site_with):
    assert "it is not in the study's cohort" in refusal(make_plan(sites=1), site_with(number=2)).message


def test_a_data_set_that_is_not_here_is_refused(make_plan, site_with):
    assert "no data set called 'cells'" in refusal(make_plan(dataset="cells"), site_with()).message


NO_PRIVACY = {"privacy": {"mechanism": "none", "epsilon": None}}


def test_no_privacy_is_refused_where_there_is_a_budget(make_plan, site_with):
    assert "policy.mechanisms does not allow 'none'" in refusal(make_plan(**NO_PRIVACY), site_with()).message


def test_no_privacy_is_fine_where_there_is_no_budget_or_the_policy_names_it(make_plan, site_with):
    check_policy(make_plan(**NO_PRIVACY), site_with(dataset={"privacy": None}))
    check_policy(make_plan(**NO_PRIVACY), site_with(policy={"mechanisms": ["none"]}))


def test_a_private_study_is_refused_where_there_is_no_budget(make_plan, site_with):
    refusal(make_plan(), site_with(dataset={"privacy": None}))


def test_a_column_that_may_not_be_predicted_is_refused(make_plan, site_with):
    error = refusal(make_plan(), site_with(dataset={"target": "disease"}))
    assert "may be used to predict 'disease' only, not 'above'" in error.message
    check_policy(make_plan(), site_with(dataset={"target": "above"}))


def test_the_price_of_one_study_is_limited(make_plan, site_with):
    site = site_with(policy={"max_epsilon_per_study": 3.0})
    check_cost(make_plan(), site, site.policy, epsilon=3.0)
    with pytest.raises(PolicyRefused, match=r"epsilon 3\.01, policy.max_epsilon_per_study is 3\.00"):
        check_cost(make_plan(), site, site.policy, epsilon=3.01)


def test_without_a_limit_on_one_study_none_may_run(make_plan, site_with):
    site = site_with(policy={"max_epsilon_per_study": None})
    with pytest.raises(PolicyRefused, match="max_epsilon_per_study is not set"):
        check_cost(make_plan(), site, site.policy, epsilon=0.1)


def test_a_delta_that_gives_away_a_record_is_refused(make_plan, site_with):
    site, plan = site_with(), make_plan(privacy={"delta": 0.01})
    check_delta(plan, site, records=100)
    with pytest.raises(PolicyRefused, match=r"delta 0\.01 is larger than 1 / 101 records"):
        check_delta(plan, site, records=101)


def test_updates_in_the_clear_need_the_policys_leave(make_plan, site_with):
    plain = make_plan(secure_aggregation={"enabled": False})
    for policy in ({"unmasked_updates": False}, {"unmasked_updates": None}):
        error = refusal(plain, site_with(policy=policy))
        assert "updates may not travel unmasked (policy.unmasked_updates is false)" in error.message
        assert error.exit_code == 4
        check_policy(make_plan(), site_with(policy=policy))
    check_policy(plain, site_with(policy={"unmasked_updates": True}))


def test_an_epsilon_that_is_no_number_is_refused(make_plan, site_with):
    site = site_with()
    for epsilon in (float("nan"), float("inf")):
        with pytest.raises(PolicyRefused):
            check_cost(make_plan(), site, site.policy, epsilon=epsilon)


@pytest.mark.parametrize(
    ("sites", "survivors", "groups", "cohort", "few"),
    [(17, 12, 3, 2, 0), (17, 15, 3, 4, 3), (17, 17, 5, 4, 3), (9, 9, 4, 3, 2)],
)
def test_the_smallest_group_that_may_be_left_is_the_cohort(make_plan, site_with, sites, survivors, groups, cohort, few):
    plan = make_plan(
        sites=sites,
        strategy="coordinate_median",
        recipe={"options": {"groups": groups}},
        secure_aggregation={"min_survivors": survivors},
    )
    allowed = {"strategies": ["coordinate_median"]}
    error = refusal(plan, site_with(policy=allowed | {"min_cohort": cohort}))
    assert f"a group sum may stand for only {few} sites, policy.min_cohort is {cohort}" in error.message
    assert "lower the recipe's groups" in error.hint
    if few:
        check_policy(plan, site_with(policy=allowed | {"min_cohort": few}))
