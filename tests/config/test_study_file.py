"""Study file, overrides, recipes and site files together."""

import re

import pytest
import yaml

import fedsci.config.plan as plans
from fedsci.config.shipped import shipped
from fedsci.config.study_file import load_deployed_study, load_study
from fedsci.errors import ConfigError
from fedsci.names import SiteId


@pytest.fixture
def study_file(write_study, make_lab):
    """A study over three labs."""
    files = [make_lab(number).name for number in (2, 3, 1)]
    return write_study(sites=files)


def refusal(path, *overrides: str, **options) -> ConfigError:
    with pytest.raises(ConfigError) as refused:
        load_study(path, overrides=list(overrides), **options)
    assert "\n" not in refused.value.message
    return refused.value


def test_sites_are_sorted_by_name_with_their_files(study_file):
    loaded = load_study(study_file)
    assert loaded.plan.sites == ("lab-1", "lab-2", "lab-3")
    assert [file.name for file in loaded.site_files] == ["lab-1.yaml", "lab-2.yaml", "lab-3.yaml"]
    assert all(file.is_absolute() for file in loaded.site_files)


def test_a_folder_of_sites_holds_site_files_and_others(write_study, make_lab, tmp_path):
    labs = tmp_path / "labs"
    labs.mkdir()
    for number in (1, 2, 3):
        make_lab(number).rename(labs / f"{number}.yml")
    (labs / "other.yaml").write_text("strategy: x\n")
    (labs / "notes.txt").write_text("site: no")
    assert load_study(write_study(sites="labs")).plan.sites == ("lab-1", "lab-2", "lab-3")


def test_an_override_wins_over_the_file(study_file):
    plan = load_study(study_file, overrides=["training.rounds=7", "privacy.epsilon=1.5"], seed=11).plan
    assert (plan.training.rounds, plan.study.privacy.epsilon, plan.study.seed) == (7, 1.5, 11)


def test_an_override_may_add_a_section_and_may_hold_yaml(study_file):
    overrides = [
        "secure_aggregation={enabled: false, min_survivors: 1}",
        "model={name: mlp, hidden: [3, 4]}",
        "question=a=b",
    ]
    plan = load_study(study_file, overrides=overrides).plan
    assert plan.min_survivors == 1
    assert plan.study.model.hidden == [3, 4]
    assert plan.study.question == "a=b"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("training.rounds", "expected key=value"),
        ("=3", "expected key=value"),
        ("training..rounds=3", "expected key=value"),
        (".rounds=3", "expected key=value"),
        ("training.rounds=[1", "the value is not valid YAML"),
        ("question=2024-13-45", "the value is not valid YAML"),
        ("question=!!timestamp x", "the value is not valid YAML"),
        ("seed.deep=1", "seed is not a section"),
        ("sites.0=x", "sites is not a section"),
        ("training.rounds=0", "training.rounds is 0"),
        ("training.rounds=", "privacy"),
        ("training.roundz=3", "unknown key 'roundz'"),
        ("privacy.epsilon=-1", "epsilon is -1"),
        ("training=3", "training is 3"),
        ("strategy=fedsgd", "strategy 'fedsgd' does not exist"),
    ],
)
def test_a_wrong_override_is_named_as_it_was_typed(study_file, text, problem):
    if problem == "privacy":  # an empty value is no value: the recipe's holds
        assert load_study(study_file, overrides=[text]).plan.training.rounds == 30
        return
    error = refusal(study_file, text)
    assert problem in error.message
    assert error.message.startswith(f"--set {text}")


def test_a_wrong_seed_is_named_as_an_option(study_file):
    assert refusal(study_file, seed=-1).message.startswith("--seed -1: seed is -1")


def test_an_override_does_not_take_the_blame_for_another_line(study_file):
    study_file.write_text(study_file.read_text().replace("sample_rate: 1.0", "sample_rate: 2.0"))
    assert "study.yaml line" in refusal(study_file, "training.rounds=3").message


def test_an_unknown_strategy_names_its_line_and_the_nearest(write_study, make_lab):
    error = refusal(write_study(strategy="fedag", sites=[make_lab().name]))
    assert "study.yaml line" in error.message
    assert "strategy 'fedag' does not exist" in error.message
    assert error.hint.startswith("did you mean 'fedavg'?")


def test_a_strategy_may_be_a_path_relative_to_the_study(study_file):
    (study_file.parent / "mine.yaml").write_text("name: fedavg\ntraining: {rounds: 9}\n")
    plan = load_study(study_file, overrides=["strategy=mine.yaml", "training={}"]).plan
    assert (plan.recipe.name, plan.training.rounds) == ("fedavg", 9)


@pytest.mark.parametrize(
    ("recipe", "problem"),
    [
        ("name: fedmagic\n", "line 1: no algorithm is called 'fedmagic'"),
        ("nme: fedavg\n", "unknown key 'nme'"),
        ("name: fedavg\nsees: each\n", "the recipe says that fedavg sees each"),
        ("name: fedavg\nserver_optimiser: {kind: lamb}\n", "server_optimiser.kind is 'lamb'"),
        ("name: fedavg\nserver_optimiser: {learning_rate: -1}\n", "server_optimiser.learning_rate is -1"),
        ("name: fedavg\nserver_optimiser: {momentum: 1}\n", "server_optimiser.momentum is 1"),
        ("name: fedavg\nserver_optimiser: {beta_1: 1}\n", "server_optimiser.beta_1 is 1"),
        ("name: fedavg\nserver_optimiser: {beta_2: -1}\n", "server_optimiser.beta_2 is -1"),
        ("name: fedavg\nserver_optimiser: {tau: 0}\n", "server_optimiser.tau is 0"),
        ("name: fedavg\ntraining: {sample_rate: 3}\n", "training.sample_rate is 3"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(study_file, recipe, problem):
    (study_file.parent / "mine.yaml").write_text(recipe)
    assert problem in refusal(study_file, "strategy=mine.yaml").message


def test_a_recipe_that_is_not_there_is_refused(study_file):
    assert "strategy file" in refusal(study_file, "strategy=./nothing.yaml").message


def test_two_sites_of_one_name_are_refused(write_study, make_lab, tmp_path):
    file = make_lab()
    (tmp_path / "twin.yaml").write_text(file.read_text())
    error = refusal(write_study(sites=[file.name, "twin.yaml"]))
    assert "are both called 'lab-1'" in error.message
    assert error.hint == "give every site its own name"


def test_a_site_without_the_data_set_is_refused(write_study, make_lab):
    error = refusal(write_study(dataset="cells", sites=[make_lab().name]))
    assert "lab-1 holds no data set called 'cells'" in error.message
    assert error.hint.startswith("it holds points")


@pytest.mark.parametrize("sites", [None, [], "."])
def test_no_site_files_are_refused(write_study, tmp_path, sites):
    assert "no site files" in refusal(write_study(sites=sites)).message


def test_a_site_folder_that_is_not_there_is_refused(write_study):
    assert "is not a folder" in refusal(write_study(sites="nowhere")).message


def test_a_site_file_that_is_not_there_is_refused(write_study):
    assert "site file" in refusal(write_study(sites=["nowhere.yaml"])).message


def test_more_survivors_than_sites_are_refused(study_file):
    error = refusal(study_file, "secure_aggregation.min_survivors=4")
    assert "min_survivors is 4, but the study has 3 sites" in error.message
    assert str(study_file) in error.message


def test_two_sites_cannot_be_masked_and_are_told_what_can_be_done(write_study, make_lab):
    path = write_study(sites=[make_lab(number).name for number in (1, 2)])
    error = refusal(path)
    assert "secure aggregation is not possible with 2 sites" in error.message
    assert "the sum of two tells each the other's" in error.message
    assert "at least 3 sites must finish" in error.hint
    assert "secure_aggregation.enabled: false only where policies allow it" in error.hint
    assert load_study(path, overrides=["secure_aggregation.enabled=false"]).plan.sites == ("lab-1", "lab-2")


@pytest.mark.parametrize(("sites", "survivors", "least"), [(3, 2, "3 of 3"), (4, 2, "3 of 4"), (7, 4, "5 of 7")])
def test_survivors_below_the_threshold_are_refused_where_updates_are_masked(
    write_study, make_lab, sites, survivors, least
):
    path = write_study(sites=[make_lab(number).name for number in range(1, sites + 1)])
    error = refusal(path, f"secure_aggregation.min_survivors={survivors}")
    assert f"not possible with {sites} sites and min_survivors {survivors}" in error.message
    assert f"at least {least} sites must finish" in error.hint
    assert load_study(path, overrides=[f"secure_aggregation={{enabled: false, min_survivors: {survivors}}}"])
    assert load_study(path, overrides=[f"secure_aggregation.min_survivors={survivors + 1}"])


def test_a_strategy_that_must_see_each_update_is_refused_where_updates_are_masked(study_file, monkeypatch):
    build = plans.build_strategy

    def build_one_that_sees_each(*args, **kwargs):
        strategy = build(*args, **kwargs)
        object.__setattr__(strategy, "sees", "each")
        return strategy

    monkeypatch.setattr(plans, "build_strategy", build_one_that_sees_each)
    (study_file.parent / "mine.yaml").write_text("name: dp_fedsgd\nsees: each\n")
    error = refusal(study_file, "strategy=mine.yaml")
    assert "dp_fedsgd must see each site's update, and secure aggregation shows only their sum" in error.message
    assert "a strategy that works on sums" in error.hint
    assert load_study(study_file, overrides=["strategy=mine.yaml", "secure_aggregation.enabled=false"])


def test_what_a_site_may_spend_does_not_travel_in_the_plan(study_file, make_lab):
    before = load_study(study_file).plan.to_bytes()
    make_lab(1, dataset={"privacy": {"epsilon": 1.0}})
    assert load_study(study_file).plan.to_bytes() == before
    assert b".csv" not in before
    assert str(study_file.parent).encode() not in before


def test_the_file_is_yaml_as_written(study_file):
    assert yaml.safe_load(study_file.read_text())["study"] == "tiny"


@pytest.mark.parametrize(("epsilon", "rate"), [(1, 0.33), (3, 0.99), (8, 2.5)])
def test_the_demonstration_learns_slower_where_there_is_more_noise(epsilon, rate):
    study = shipped("examples") / "digits" / "study.yaml"
    plan = load_study(study, overrides=[f"privacy.epsilon={epsilon}"]).plan
    assert plan.strategy.optimiser.learning_rate == pytest.approx(rate)
    assert load_study(study, overrides=["training.learning_rate=0.1"]).plan.strategy.optimiser.learning_rate == 0.1


def test_a_study_elsewhere_names_its_sites(write_study):
    active = [SiteId(name) for name in ("lab-2", "lab-1", "lab-3")]
    assert load_deployed_study(write_study(), active=active).sites == ("lab-1", "lab-2", "lab-3")
    three = ["lab-3", "lab-2", "lab-1"]
    assert load_deployed_study(write_study(sites=three), active=[*active, SiteId("lab-4")]).sites == tuple(
        sorted(three)
    )
    chosen = load_deployed_study(write_study(sites=["lab-9"]), active=active, chosen=["all"])
    assert chosen.sites == ("lab-1", "lab-2", "lab-3")


@pytest.mark.parametrize(
    ("written", "chosen", "text"),
    [
        (["lab-1", "lab-9"], None, "lab-9 is not an active site"),
        (["lab-1.yaml", "lab-2"], None, "lab-1.yaml is for running on one machine"),
        ("labs", None, "labs is for running on one machine"),
        ([], ["lab-1", "lab-1", "lab-2"], "lab-1 stands there twice"),
        ([], ["lab-1"], "secure aggregation is not possible with 1 sites"),
    ],
)
def test_sites_elsewhere_that_cannot_be_meant(write_study, written, chosen, text):
    active = [SiteId(name) for name in ("lab-1", "lab-2", "lab-3")]
    with pytest.raises(ConfigError, match=re.escape(text)):
        load_deployed_study(write_study(sites=written), active=active, chosen=chosen)


@pytest.mark.parametrize(
    "changes", [{"strategy": "fedbuff"}, {"strategy": "fednova", "training": {"pace": "by_speed"}}]
)
def test_between_machines_nobody_knows_who_has_finished(write_study, changes):
    study = write_study(privacy={"mechanism": "none", "epsilon": None}, **changes)
    with pytest.raises(ConfigError, match="which is for simulations with weather so far") as refused:
        load_deployed_study(study, active=[SiteId(f"lab-{n}") for n in (1, 2, 3, 4)])
    assert "fedsci run STUDY --weather FILE" in refused.value.hint
