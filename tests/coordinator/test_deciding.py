"""A study that waits for people: what lets it go on, what does not, and that it is all the same to a restart."""

import json
import time

import numpy as np
import pytest

from fedsci.audit.statement import peek
from fedsci.coordinator.deciding import FOLDER, decision_file, hand_in, may_release, open_request
from fedsci.coordinator.decisions import Point, Question, sign_decision
from fedsci.coordinator.progress import Suspended
from fedsci.errors import InputError, PolicyRefused, RoundAborted, VerificationFailed
from fedsci.secagg import Seed, SigningKey

OFFICER, COORDINATOR = SigningKey(Seed(b"o" * 32)), SigningKey(Seed(b"c" * 32))
KEYS = {"officer": OFFICER, "coordinator": COORDINATOR}
TRAINING = {"learning_rate": 0.5, "sample_rate": 1.0, "rounds": 5}
STUDY = {
    "strategy": "dp_fedsgd",
    "training": TRAINING,
    "policy": {"exact_evaluation": True},
    "checkpoints": [
        {"before": "training", "who": ["officer"]},
        {"every_rounds": 2, "who": ["coordinator"]},
        {"before": "release", "who": ["officer", "coordinator"]},
    ],
    "signers": {role: [key.public.hex()] for role, key in KEYS.items()},
}
RELEASE_ONLY = STUDY | {
    "checkpoints": [{"before": "release", "who": ["officer", "coordinator"]}],
    "training": TRAINING | {"rounds": 1},
    "masked": False,
}
POINTS = ["before:training", "round:2", "round:4", "before:release"]


def sign(folder, role, *, answer="approve", key=None, now=None, **options):
    question = open_request(folder)
    return sign_decision(
        question.point,
        role=role,
        name=f"the {role}",
        answer=answer,
        key=key or KEYS[role],
        now=now or time.time(),
        **options,
    )


def agree(folder, result):
    """Everybody who is asked approves."""
    for role in result.waits[-1][1]:
        hand_in(folder, sign(folder, role))


def drop(folder, content, name="mailed.decision.json"):
    (folder / FOLDER / name).write_bytes(content)


def check_completed(result, reference):
    assert result.error is None
    np.testing.assert_allclose(result.progress.model, reference.progress.model, atol=1e-4)
    assert result.progress.settled == {"lab-1", "lab-2", "lab-3", "lab-4"}
    said = [peek(envelope)[1]["checkpoint"] for envelope in result.progress.decisions]
    assert said == [*POINTS, POINTS[-1]]


@pytest.fixture
def reference(conduct):
    calm = {key: value for key, value in STUDY.items() if key not in ("checkpoints", "signers")}
    return conduct(masked=False, **calm)


def test_a_study_waits_at_every_point_and_asks_nobody_meanwhile(conduct, reference):
    at = {}

    def people(folder, result):
        at.setdefault(result.waits[-1][0], dict(result.exchanges))
        agree(folder, result)

    result = conduct(people=people, **STUDY)
    check_completed(result, reference)
    assert list(at) == POINTS
    assert [at[point].get("train", 0) for point in POINTS] == [0, 2, 4, 5]
    assert (at["before:release"]["evaluate"], "finish" in at["before:release"]) == (1, False)
    assert [point for point, roles in result.waits if not roles] == POINTS  # it says when it goes on
    assert len(result.heard) == 5


@pytest.mark.slow
def test_what_people_decide_on_is_the_model_that_is_released_and_what_is_known_of_it(conduct):
    seen = []

    def people(folder, result):
        seen.append(open_request(folder))
        agree(folder, result)

    result = conduct(people=people, **STUDY)
    first, second, _, last = seen
    assert (first.metrics, first.measured_after, first.rounds) == (None, None, 0)
    assert (second.measured_after, second.rounds, second.planned) == (1, 2, 5)
    assert last.measured_after == 5
    assert last.metrics == result.progress.federated.pooled()
    assert len({question.point.model for question in seen}) == 4
    assert len({question.point.run for question in seen}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_a_signed_refusal_ends_the_run_and_sites_settle(conduct, point):
    def people(folder, result):
        here, (role, *_) = result.waits[-1]
        hand_in(folder, sign(folder, role, answer="refuse" if here == point else "approve", reason="not yet"))

    result = conduct(people=people, **STUDY)
    assert isinstance(result.error, PolicyRefused)
    assert result.error.exit_code == 4
    role = "coordinator" if point.startswith("round") else "officer"
    assert result.error.message.startswith(f"the {role} ({role}) refused ")
    assert result.error.message.endswith(": not yet")
    assert len(result.progress.settled) == 4
    assert result.waits[-1] == (point, ())


def test_a_role_that_has_approved_may_refuse_while_the_other_is_awaited(conduct):
    def people(folder, result):
        again = result.waits[-1][1] == ("coordinator",)
        hand_in(folder, sign(folder, "officer", answer="refuse" if again else "approve"))

    result = conduct(people=people, **RELEASE_ONLY)
    assert isinstance(result.error, PolicyRefused)
    assert [text.split(") ")[1] for text in result.heard] == ["approved before release", "refused before release"]


def test_without_a_decision_it_waits_and_a_stop_ends_it(conduct):
    looks = []

    def people(folder, result):
        looks.append(folder)
        if len(looks) == 20:
            raise RoundAborted("stopped by somebody")

    result = conduct(people=people, **RELEASE_ONLY)
    assert result.error.message == "stopped by somebody"
    assert result.progress.decisions == []
    assert len(result.progress.settled) == 4


def test_nobody_decides_for_two(conduct):
    """One role's second approval, a copy of its first, and its key under the other's name: none of them counts."""
    step = []

    def people(folder, result):
        step.append(result.waits[-1])
        if len(step) == 1:
            drop(folder, sign(folder, "officer"))
        elif len(step) == 2:
            drop(folder, sign(folder, "officer", reason="again"), "second.decision.json")
        elif len(step) == 3:
            drop(folder, result.progress.decisions[0], "copy.decision.json")
        elif len(step) == 4:
            with pytest.raises(VerificationFailed):
                sign(folder, "coordinator", key=OFFICER)
            forged = sign(folder, "coordinator").replace(b'"keyid": "', b'"keyid": "0')
            drop(folder, forged, "forged.decision.json")
        else:
            hand_in(folder, sign(folder, "coordinator"))

    result = conduct(people=people, **RELEASE_ONLY)
    assert result.error is None
    assert [roles for _, roles in step[1:]] == [("coordinator",)] * 4
    assert result.heard[1:4] == [
        "a decision does not count: officer has approved already, before release",
        "a decision does not count: this very decision was counted already",
        "a decision does not count: the decision is not signed with a key of coordinator",
    ]


def test_what_does_not_count_is_said_once_and_the_run_goes_on_waiting(conduct, tmp_path):
    looks = []

    def people(folder, result):
        looks.append(1)
        if len(looks) == 1:
            drop(folder, b"yes, go on")
            (folder / FOLDER / "folder.decision.json").mkdir()
            (folder / FOLDER / "large.decision.json").write_bytes(b" " * (1 << 21))
            (folder / FOLDER / "dangling.decision.json").symlink_to(tmp_path / "nothing")
        if len(looks) == 5:
            assert result.waits[-1] == ("before:release", ("officer", "coordinator"))
            agree(folder, result)

    result = conduct(people=people, **RELEASE_ONLY)
    assert result.error is None
    assert sorted(result.heard[:4]) == [
        "a decision does not count: this is no DSSE envelope",
        "dangling.decision.json does not count: this is no decision",
        "folder.decision.json does not count: this is no decision",
        "large.decision.json does not count: this is no decision",
    ]
    assert len(result.heard) == 6


@pytest.mark.slow
def test_a_decision_of_an_earlier_point_or_another_run_does_not_count_at_this_one(conduct):
    kept = []

    def first(folder, result):
        kept.append(sign(folder, result.waits[-1][1][0]))
        agree(folder, result)

    conduct(people=first, **STUDY)
    looks = []

    def second(folder, result):
        looks.append(1)
        if len(looks) == 1:
            drop(folder, kept[0])
        elif result.waits[-1][0] == "round:4" and len(result.progress.decisions) == 2 and "old" not in looks:
            looks.append("old")
            drop(folder, result.progress.decisions[1], "old.decision.json")
        else:
            agree(folder, result)

    result = conduct(people=second, **STUDY)
    assert result.error is None
    refused = [text for text in result.heard if "does not count" in text]
    assert [text.split(": ", 1)[1].split(" for ", 1)[1][:21] for text in refused] == [
        "run " + peek(kept[0])[1]["run"][:17],
        "the checkpoint after ",
    ]


@pytest.mark.slow
def test_it_is_asked_once_however_often_the_process_ends(conduct, reference):
    asked, died = {}, []

    def people(folder, result):
        point, _ = result.waits[-1]
        asked.setdefault(point, []).append(open_request(folder))
        died.append(point)
        if died.count(point) % 3:
            raise Suspended
        agree(folder, result)

    result = conduct(people=people, **STUDY)
    check_completed(result, reference)
    assert result.progress.abandoned == []
    assert result.exchanges["finish"] == 1
    for questions in asked.values():
        assert len(questions) == 3
        assert questions[0] == questions[1] == questions[2]  # when, and what was known then, too


def test_a_decision_that_comes_while_nobody_runs_counts_at_the_next_start(conduct, reference):
    def people(folder, result):
        agree(folder, result)
        raise Suspended

    check_completed(conduct(people=people, **STUDY), reference)


def test_half_of_the_decisions_are_kept(conduct):
    def people(folder, result):
        role = result.waits[-1][1][0]
        hand_in(folder, sign(folder, role))
        if role == "coordinator":
            assert len(result.progress.decisions) == 1
            raise Suspended

    result = conduct(people=people, **RELEASE_ONLY)
    assert result.error is None
    waits = [roles for _, roles in result.waits]
    assert waits == [("officer", "coordinator"), ("coordinator",), ("coordinator",), ()]


def test_a_refusal_that_was_kept_holds_after_a_restart(conduct, monkeypatch):
    from fedsci.coordinator.deciding import Deciding

    def die(self, decisions):
        if list(decisions):
            monkeypatch.undo()
            raise Suspended

    def people(folder, result):
        hand_in(folder, sign(folder, "officer", answer="refuse"))
        monkeypatch.setattr(Deciding, "_refuse", die)

    result = conduct(people=people, **RELEASE_ONLY)
    assert isinstance(result.error, PolicyRefused)
    assert len(result.progress.decisions) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 3])
def test_a_round_given_up_at_a_checkpoint_takes_none_of_it_away(conduct, number):
    """The second round is lost, the third likewise: people are asked before the next one all the same."""
    exchange = 2 + 2 * (number - 1)
    seen = []

    def people(folder, result):
        seen.append((result.waits[-1][0], result.progress.rounds_completed))
        agree(folder, result)

    result = conduct(people=people, dies=[(exchange, "after")], **STUDY)
    assert result.error is None
    assert result.progress.abandoned == [number]
    assert seen == [
        ("before:training", 0),
        ("round:2", 2 - (number == 2)),
        ("round:4", 3),
        ("before:release", 4),
    ]


@pytest.mark.slow
def test_decisions_that_were_tampered_with_are_asked_for_again(conduct):
    struck = []

    def people(folder, result):
        agree(folder, result)
        if result.waits[-1][0] == "before:release" and not struck:
            struck.append(1)
            kept = next(folder.parent.glob("coordinator/progress.json"))
            values = json.loads(kept.read_bytes())
            for at, envelope in enumerate(values["decisions"]):
                signature = json.loads(envelope)["signatures"][0]["sig"]
                values["decisions"][at] = envelope.replace(signature, signature[::-1])
            kept.write_text(json.dumps(values))
            raise Suspended

    result = conduct(people=people, **STUDY | {"checkpoints": STUDY["checkpoints"][::2]})
    assert result.error is None
    assert [point for point, roles in result.waits if not roles] == [
        "before:training",
        "before:training",
        "before:release",
    ]


def test_a_model_is_released_only_as_it_was_approved(conduct, make_plan):
    result = conduct(people=agree, **RELEASE_ONLY)
    # the plan of the run, with the keys that counted
    plan = make_plan(
        sites=4, privacy={"mechanism": "none", "epsilon": None}, evaluation={"baselines": []},
        **{key: value for key, value in RELEASE_ONLY.items() if key not in ("policy", "masked")},
    )  # fmt: skip
    assert not may_release(plan, result.progress)  # another plan: its decisions do not count
    assert may_release(make_plan(sites=4), result.progress)  # nobody is asked


def test_a_study_with_checkpoints_does_not_run_where_nobody_would_be_asked(conduct):
    result = conduct(**RELEASE_ONLY)
    assert isinstance(result.error, InputError)
    assert "nobody would be asked" in result.error.message
    assert {step.action for step in result.steps} == {"hello"}


def test_what_waits_for_nobody_takes_no_decision(conduct, tmp_path):
    requests = []

    def people(folder, result):
        requests.append((folder, sign(folder, "officer")))
        agree(folder, result)

    conduct(people=people, **RELEASE_ONLY)
    folder, content = requests[0]
    assert (folder / FOLDER / "before-release.decided.json").exists()
    with pytest.raises(InputError, match="waits for no decision"):
        hand_in(folder, content)
    assert decision_file("round:20", "officer") == "round-20.officer.decision.json"


@pytest.mark.parametrize(("checkpoint", "role"), [("/x", "officer"), ("round:1/../..", "officer"), ("round:1", "../x")])
def test_the_file_of_a_decision_lies_beside_its_request(checkpoint, role):
    with pytest.raises(InputError):
        decision_file(checkpoint, role)


def handed_over(tmp_path):
    """A run folder from elsewhere that waits for the officer."""
    folder = tmp_path / "run"
    (folder / FOLDER).mkdir(parents=True)
    point = Point(
        run="0" * 32,
        plan="sha256:" + "1" * 64,
        checkpoint="round:1",
        model="sha256:" + "2" * 64,
        signers={"officer": (OFFICER.public.hex(),)},
    )
    question = Question(
        point=point, study="tiny", rounds=1, planned=3, metrics=None, measured_after=None, epsilon=None, delta=1e-5,
        asked=0.0,
    )  # fmt: skip
    (folder / FOLDER / "round-1.request.json").write_bytes(question.to_bytes())
    return folder


def test_links_in_a_folder_that_was_handed_over_are_not_followed(tmp_path):
    folder, victim = handed_over(tmp_path), tmp_path / "victim"
    content = sign(folder, "officer")
    victim.write_text("mine")
    for name in (".round-1.officer.decision.json.partial", "round-1.officer.decision.json"):
        (folder / FOLDER / name).symlink_to(victim)
    hand_in(folder, content)
    assert victim.read_text() == "mine"
    assert (folder / FOLDER / "round-1.officer.decision.json").read_bytes() == content


def test_a_folder_of_decisions_that_leads_elsewhere_gets_none(tmp_path):
    folder, elsewhere = handed_over(tmp_path), tmp_path / "elsewhere"
    content = sign(folder, "officer")
    (folder / FOLDER).rename(elsewhere)
    (folder / FOLDER).symlink_to(elsewhere)
    with pytest.raises(InputError, match="leads elsewhere"):
        hand_in(folder, content)
    assert [path.name for path in elsewhere.iterdir()] == ["round-1.request.json"]
