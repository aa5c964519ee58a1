"""Checkpoints of a study file: what is refused at load, and that the plan fixes who decides."""

import json
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from fedsci.config.checkpoints import HumanCheckpoint, roles_after
from fedsci.config.loading import parse, read_document
from fedsci.config.plan_checks import check_plan, plan_from_bytes
from fedsci.config.scaling import pass_before
from fedsci.config.study import Study
from fedsci.errors import ConfigError

A, B, C = ("ab" * 32, "cd" * 32, "ef" * 32)
RELEASE = {"before": "release", "who": ["officer"]}


@pytest.fixture
def refusal(tmp_path, study_values):
    def of(checkpoints, signers) -> ConfigError:
        file = tmp_path / "study.yaml"
        values = study_values() | {"checkpoints": checkpoints, "signers": signers}
        file.write_text(json.dumps(values))
        with pytest.raises(ConfigError) as refused:
            parse(Study, read_document(file, kind="study"))
        assert refused.value.hint
        return refused.value

    return of


@pytest.mark.parametrize(
    ("checkpoints", "signers", "text"),
    [
        ([RELEASE], {}, "officer must decide (before: release) and has no key"),
        ([RELEASE], {"coordinator": [A]}, "officer must decide (before: release) and has no key"),
        ([RELEASE], {"officer": []}, "signers.officer has no key"),
        ([RELEASE], {"officer": ["abcd"]}, "signers.officer is no list of public keys"),
        ([RELEASE], {"officer": [A.upper()]}, "signers.officer is no list of public keys"),
        ([RELEASE], {"officer": [A[:-1]]}, "signers.officer is no list of public keys"),
        ([RELEASE], {"officer": A}, "signers.officer is 'abab"),
        ([RELEASE], {"officer": [A, A]}, "signers.officer names a key twice"),
        ([RELEASE], {"officer": [A], "coordinator": [B, A]}, "officer and coordinator have the same key"),
        ([RELEASE], {"officer": [A], "../x": [B]}, "'../x' is no role"),
        ([{"before": "release", "who": []}], {}, "checkpoints.0.who is []"),
        ([{"before": "release"}], {}, "checkpoints.0.who is missing"),
        ([{"before": "release", "who": "officer"}], {}, "checkpoints.0.who is 'officer'"),
        ([{"before": "release", "who": ["An Officer"]}], {}, "'An Officer' is no role"),
        ([{"before": "release", "who": ["officer", "officer"]}], {}, "who names officer twice"),
        ([{"before": "lunch", "who": ["officer"]}], {}, "checkpoints.0.before is 'lunch'"),
        ([{"who": ["officer"]}], {}, "one of before and every_rounds"),
        ([RELEASE | {"every_rounds": 3}], {}, "one of before and every_rounds"),
        ([{"every_rounds": 0, "who": ["officer"]}], {}, "checkpoints.0.every_rounds is 0"),
        ([{"every_rounds": 1.5, "who": ["officer"]}], {}, "checkpoints.0.every_rounds is 1.5"),
        ([{"every_round": 2, "who": ["officer"]}], {}, "unknown key 'every_round'"),
        ([RELEASE, RELEASE], {"officer": [A]}, "checkpoints has before: release twice"),
    ],
)
def test_what_cannot_be_decided_is_refused(refusal, checkpoints, signers, text):
    assert text in refusal(checkpoints, signers).message


def test_a_role_without_a_key_is_told_how_to_make_one(refusal):
    hint = refusal([RELEASE], {}).hint
    assert "fedsci signer new FILE" in hint
    assert 'signers: {officer: ["..."]}' in hint


def test_a_checkpoint_that_would_never_ask_is_refused(make_plan):
    plan = make_plan(checkpoints=[{"every_rounds": 3, "who": ["officer"]}], signers={"officer": [A]})
    with pytest.raises(ConfigError, match="would never ask officer: the study has 2 rounds"):
        check_plan(plan)


def test_checkpoints_and_keys_are_part_of_the_digest_and_travel(make_plan):
    bare = make_plan()
    plans = [
        make_plan(checkpoints=[RELEASE], signers={"officer": [A]}),
        make_plan(checkpoints=[RELEASE], signers={"officer": [B]}),
        make_plan(checkpoints=[{"before": "training", "who": ["officer"]}], signers={"officer": [A]}),
    ]
    assert len({plan.digest for plan in [bare, *plans]}) == 4
    for plan in [bare, *plans]:
        assert plan_from_bytes(plan.to_bytes()) == plan
    assert not {"checkpoints", "signers"} & bare.to_json()["study"].keys()  # as before there were any


def test_the_pass_that_measures_the_scaling_keeps_what_is_asked_before_and_has_no_rounds_to_count(make_plan):
    plan = make_plan(
        scaling="federated",
        training={"rounds": 4},
        checkpoints=[RELEASE, {"every_rounds": 2, "who": ["officer"]}],
        signers={"officer": [A]},
    )
    assert [checkpoint.when for checkpoint in pass_before(plan).study.checkpoints] == ["before: release"]


def test_what_the_documentation_shows_is_a_study(make_plan):
    text = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text()
    shown = yaml.safe_load(dedent(text.partition("## In the study\n")[2].partition("\nEach role")[0]))
    plan = make_plan(training={"rounds": 60}, **shown)
    check_plan(plan)
    assert [checkpoint.when for checkpoint in plan.study.checkpoints] == [
        "before: training",
        "every_rounds: 20",
        "before: release",
    ]


def test_the_newest_point_of_every_period_is_due():
    every = [HumanCheckpoint(every_rounds=2, who=["a"]), HumanCheckpoint(every_rounds=3, who=["b"])]
    found = [roles_after(every, rounds) for rounds in range(8)]
    assert found == [
        {},
        {},
        {2: ("a",)},
        {2: ("a",), 3: ("b",)},
        {3: ("b",), 4: ("a",)},
        {3: ("b",), 4: ("a",)},
        {6: ("a", "b")},
        {6: ("a", "b")},
    ]
