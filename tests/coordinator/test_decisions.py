"""A decision counts for exactly one run, plan, point, model and role; everything else has a refusal of its own."""

import json

import pytest

from fedsci.audit.statement import add_signature, sign_statement
from fedsci.coordinator.decisions import (
    Point,
    Question,
    open_decision,
    question_from,
    refuse_replay,
    sign_decision,
)
from fedsci.errors import InputError, VerificationFailed
from fedsci.secagg import Seed, SigningKey

NOW = 1_800_000_000
OFFICER, SECOND, COORDINATOR, STRANGER = (SigningKey(Seed(bytes([n]) * 32)) for n in range(1, 5))
POINT = Point(
    run="0" * 32,
    plan="sha256:" + "1" * 64,
    checkpoint="round:20",
    model="sha256:" + "2" * 64,
    signers={"officer": (OFFICER.public.hex(), SECOND.public.hex()), "coordinator": (COORDINATOR.public.hex(),)},
)
BODY = {
    "run": POINT.run,
    "plan": POINT.plan,
    "checkpoint": POINT.checkpoint,
    "model": POINT.model,
    "role": "officer",
    "name": "Dr. Ito",
    "decision": "approve",
    "reason": "",
    "at": NOW,
    "until": NOW + 3600,
}


def signed(key=OFFICER, kind="decision", **changes):
    body = {field: value for field, value in (BODY | changes).items() if value is not None}
    return sign_statement(kind, body, [key])


def refusal(content, *, now=NOW + 10) -> str:
    with pytest.raises(VerificationFailed) as refused:
        open_decision(POINT, content, now=now)
    return refused.value.message


def unsigned() -> bytes:
    return json.dumps(json.loads(signed()) | {"signatures": []}).encode()


def with_signature_of(content: bytes) -> bytes:
    """The good decision's payload under another one's signature."""
    return json.dumps(json.loads(signed()) | {"signatures": json.loads(content)["signatures"]}).encode()


@pytest.mark.parametrize("key", [OFFICER, SECOND])
def test_either_key_of_a_role_decides_for_it(key):
    decision = open_decision(POINT, signed(key), now=NOW + 10)
    assert (decision.role, decision.name, decision.approved, decision.at) == ("officer", "Dr. Ito", True, NOW)


def test_what_is_signed_is_what_is_opened():
    options = {"role": "coordinator", "name": "K. Berg", "key": COORDINATOR, "now": NOW + 0.4}
    content = sign_decision(POINT, answer="refuse", reason="loss\n grows", **options)
    decision = open_decision(POINT, content, now=NOW + 10)
    assert (decision.approved, decision.reason, decision.envelope) == (False, "loss grows", content)


WRONG = (
    {
        "another run": (signed(run="9" * 32), "for run 99999"),
        "another plan": (signed(plan="sha256:" + "9" * 64), "for plan sha256:9999"),
        "another round": (signed(checkpoint="round:40"), "checkpoint after round 40, and the run waits after round 20"),
        "another point": (signed(checkpoint="before:release"), "checkpoint before release, and the run waits after"),
        "another model": (signed(model="sha256:" + "9" * 64), "on the model sha256:9999"),
        "a role that does not decide": (signed(role="janitor"), "the role janitor does not decide after round 20"),
        "not signed": (unsigned(), "the decision is not signed"),
        "signed by a stranger": (signed(STRANGER), "not signed with a key of officer"),
        "signed by another role": (signed(COORDINATOR), "officer's, and signed with a key of coordinator"),
        "another one's signature": (with_signature_of(signed(reason="x")), "is not valid"),
        "signed for another purpose": (signed(kind="permit"), "this is a permit, not a decision"),
        "its purpose renamed": (signed(kind="permit").replace(b"permit", b"decision"), "is not valid"),
        "no answer": (signed(decision="perhaps"), "neither approve nor refuse"),
        "nobody": (signed(name=""), "does not say who decided"),
        "two lines": (signed(name="Dr. Ito\n(coordinator)"), "the decision's name is no line"),
        "a long reason": (signed(reason="x" * 1001), "the decision's reason is no line"),
        "expired": (signed(at=NOW - 7200, until=NOW), "the decision expired 10 s ago"),
        "from the future": (signed(at=NOW + 3600, until=NOW + 7200), "signed 3590 s from now"),
        "good for ever": (signed(until=NOW + 10**9), "good for more than 744 hours"),
        "not an envelope": (b"approve", "no DSSE envelope"),
        "empty": (b"", "no DSSE envelope"),
        "a list": (b"[]", "no DSSE envelope"),
        "a field more": (signed(model_too="x"), "unknown field model_too"),
    }
    | {f"without {field}": (signed(**{field: None}), f"has no field {field}") for field in BODY}
    | {f"{field} of another type": (signed(**{field: [1]}), f"the decision's {field} is no ") for field in BODY}
)


@pytest.mark.parametrize("case", WRONG)
def test_every_wrong_decision_is_refused(case):
    content, text = WRONG[case]
    assert text in refusal(content)


def test_the_refusals_differ():
    said = [refusal(content) for content, _ in WRONG.values()]
    alike = {"not an envelope", "empty", "a list", "another one's signature", "its purpose renamed"}
    assert len(set(said)) >= len(WRONG) - len(alike) + 2


def test_a_time_that_is_a_truth_value_or_a_fraction_is_no_time():
    assert "at is no time" in refusal(signed(at=True))
    assert "until is no time" in refusal(signed(until=NOW + 0.5))


def test_a_decision_expires_and_one_that_was_counted_does_not():
    content = signed()
    open_decision(POINT, content, now=NOW + 3599)
    assert "expired" in refusal(content, now=NOW + 3600)
    assert open_decision(POINT, content, now=None).approved


def test_a_clock_that_is_a_little_ahead_does_no_harm():
    open_decision(POINT, signed(at=NOW + 200), now=NOW)
    assert "from now" in refusal(signed(at=NOW + 400), now=NOW)


def test_more_signatures_make_no_second_decision():
    both = add_signature(signed(), COORDINATOR)
    assert open_decision(POINT, both, now=NOW).role == "officer"
    assert "coordinator's, and signed with a key of officer" in refusal(signed(role="coordinator"))


def test_a_role_approves_once_and_may_still_refuse():
    first, again, no = signed(), signed(reason="again"), signed(SECOND, decision="refuse")
    counted = {"officer": first}
    for content, text in ((first, "this very decision was counted already"), (again, "officer has approved already")):
        with pytest.raises(VerificationFailed, match=text):
            refuse_replay(open_decision(POINT, content, now=NOW), counted)
    refuse_replay(open_decision(POINT, no, now=NOW), counted)
    refuse_replay(open_decision(POINT, first, now=NOW), {})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"key": STRANGER}, "not signed with a key of officer"),
        ({"role": "janitor"}, "the role janitor does not decide"),
        ({"name": " "}, "does not say who decided"),
        ({"hours": 1000}, "more than 744 hours"),
    ],
)
def test_nothing_is_signed_that_would_not_count(changes, text):
    options = {"role": "officer", "name": "Dr. Ito", "answer": "approve", "key": OFFICER, "now": NOW} | changes
    with pytest.raises(VerificationFailed, match=text):
        sign_decision(POINT, **options)


def test_a_request_is_read_as_it_was_written_and_nothing_else_is():
    question = Question(
        point=POINT, study="tiny", rounds=20, planned=60, metrics={"accuracy": 0.9, "auroc": None}, measured_after=19,
        epsilon=1.25, delta=1e-5, asked=float(NOW),
    )  # fmt: skip
    content = question.to_bytes()
    assert question_from(content) == question
    assert question.facts()[:2] == [
        "measured after round 19: accuracy 0.9",
        "privacy: epsilon 1.25 so far, at delta 1e-05",
    ]
    values = json.loads(content)
    for wrong in (
        b"",
        b"[]",
        b"{}",
        json.dumps(values | {"more": 1}).encode(),
        json.dumps(values | {"study": "a\nb"}).encode(),
        *(json.dumps(values | {"metrics": metrics}).encode() for metrics in ([], "", [["auc", 0.5]], 0)),
        json.dumps(values | {"point": values["point"] | {"model": None}}).encode(),
    ):
        with pytest.raises(InputError, match="no request for a decision"):
            question_from(wrong)


@pytest.mark.parametrize(
    "changes",
    [
        *(
            {"checkpoint": text}
            for text in ("/evil", "../../notes/x", "before:../x", "round:0", "round:-1", "round:1/2", "round:", "")
        ),
        *({"signers": {role: [OFFICER.public.hex()]}} for role in ("../x", "/x", "", "a b", "x" * 65)),
    ],
)
def test_a_request_names_no_file_elsewhere(changes):
    """A checkpoint and a role become the name of a file: only those that a plan may have are read."""
    question = Question(
        point=POINT, study="tiny", rounds=2, planned=3, metrics=None, measured_after=None, epsilon=None, delta=1e-5,
        asked=float(NOW),
    )  # fmt: skip
    values = json.loads(question.to_bytes())
    with pytest.raises(InputError, match="no request for a decision"):
        question_from(json.dumps(values | {"point": values["point"] | changes}).encode())
