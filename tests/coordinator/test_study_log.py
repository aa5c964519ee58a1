"""A logged study: every round is witnessed before the next, whatever a coordinator tries or survives."""

import json
from base64 import b64decode, b64encode
from dataclasses import replace

import numpy as np
import pytest

from fedsci.audit.log import AuditLog
from fedsci.audit.statement import peek, sign_statement
from fedsci.audit.verification import verify_log
from fedsci.coordinator.blame import LEFT_OUT, NAMED
from fedsci.coordinator.progress import Suspended
from fedsci.coordinator.study_log import StudyLog
from fedsci.errors import RoundAborted, SiteFailed, VerificationFailed
from fedsci.secagg import Seed, SigningKey
from fedsci.transport.messages import Reply, Request

LOGGED = {"audit_log": {"enabled": True}, "policy": {"unlogged_studies": False}}


def kinds(result) -> list[str]:
    return [json.loads(line)["kind"] for line in (result.audit / "entries.jsonl").read_text().splitlines()]


def verified(result):
    keys = json.loads((result.audit / "keys.json").read_bytes())
    return verify_log(
        result.audit,
        origin=f"fedsci/{keys['run']}",
        coordinator=result.log_key.public,
        sites={site: bytes.fromhex(key) for site, key in keys["sites"].items()},
        quorum=keys["quorum"],
        others={site: [bytes.fromhex(key)] for site, key in keys["post_quantum"].items()},
    )


@pytest.mark.slow
@pytest.mark.parametrize("masked", [True, False])
def test_everything_that_happens_is_in_a_log_that_verifies(conduct, masked):
    result = conduct(training={"rounds": 3}, masked=masked, **LOGGED)
    assert result.error is None
    assert kinds(result) == ["plan", *["permit"] * 4, "sites", "round", "round", "round", *["spend"] * 4, "model"]
    assert result.exchanges["witness"] == 5  # before the first round, after each, and at the end
    verified(result)


def test_no_site_begins_a_round_that_no_quorum_has_logged(conduct, monkeypatch):
    monkeypatch.setattr(StudyLog, "witness", lambda self, **_: self._log.checkpoint())
    result = conduct(training={"rounds": 2}, **LOGGED)
    assert isinstance(result.error, RoundAborted)
    refused = list(result.said("train").values())
    assert refused
    assert all(reply.error["exit_code"] == 6 for reply in refused)


def test_a_site_that_missed_a_round_s_witnesses_catches_up_with_the_next_request(conduct):
    def before(service, request):
        if service.site.site == "lab-2" and request.action == "witness" and missed:
            missed.pop()
            raise RuntimeError("away")
        return request

    missed = [1, 1]
    result = conduct(training={"rounds": 3}, before=before, **LOGGED)
    assert result.error is None
    assert not missed
    assert not result.progress.dropped
    verified(result)


@pytest.mark.slow
def test_without_a_quorum_the_study_ends(conduct):
    def before(service, request):
        if service.site.site in ("lab-1", "lab-2") and request.action == "witness":
            raise RuntimeError("away")
        return request

    result = conduct(training={"rounds": 3}, before=before, **LOGGED)
    assert isinstance(result.error, RoundAborted)
    assert "only 2 of 4 sites witness the audit log, 3 must" in result.error.message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"receipts": {}}, "leaves out what this site sent"),
        ({"receipts": "other"}, "another upload"),
        ({"round": 7}, "does not follow"),
        ({"run": "0" * 32}, "another run"),
    ],
)
def test_a_site_cosigns_no_round_that_is_not_as_it_was(conduct, monkeypatch, change, words):
    append = StudyLog._append

    def lie(self, kind, body, **about):
        if kind == "round" and body["round"] == 2:
            body = body | change
            if change.get("receipts") == "other":
                body["receipts"] = dict.fromkeys(self.plan.sites, "sha256:" + "0" * 64)
            about["round"] = body["round"]
        append(self, kind, body, **about)

    monkeypatch.setattr(StudyLog, "_append", lie)
    result = conduct(training={"rounds": 3}, **LOGGED)
    assert isinstance(result.error, RoundAborted)
    assert words in result.error.message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"quorum": 1}, "quorum of 3"),
        ({"sites": "fewer"}, "not the plan's sites"),
        ({"sites": "mine"}, "another key"),
        ({"plan": "sha256:" + "0" * 64}, "not of this plan"),
        ({"coordinator": "00" * 32}, "not of this plan"),
        ({"post_quantum": {}}, "another key for this site"),
        ({"second_signers": {f"lab-{n}": "00" * 32 for n in range(1, 5)}}, "another key for this site"),
    ],
)
def test_a_site_cosigns_no_log_with_other_witnesses(conduct, monkeypatch, change, words):
    append = StudyLog._append

    def lie(self, kind, body, **about):
        if kind == "sites":
            body = body | {name: value for name, value in change.items() if name != "sites"}
            if change.get("sites") == "fewer":
                body["sites"] = dict(list(body["sites"].items())[1:])
            if change.get("sites") == "mine":
                body["sites"] = dict.fromkeys(body["sites"], "11" * 32)
        append(self, kind, body, **about)

    monkeypatch.setattr(StudyLog, "_append", lie)
    result = conduct(training={"rounds": 2}, **LOGGED)
    assert isinstance(result.error, RoundAborted)
    assert words in result.error.message


def test_a_model_that_the_log_does_not_name_is_not_trained_on(conduct):
    def before(service, request):
        if service.site.site == "lab-2" and request.action == "train" and request.fields["round"] == 2:
            return replace(request, vector=request.vector + np.float32(1))
        return request

    result = conduct(training={"rounds": 3}, before=before, masked=False, **LOGGED)
    assert result.progress.dropped == [("lab-2", 2)]
    assert "not the model that the log names" in result.progress.reasons["lab-2", 2]
    assert kinds(result).count("refusal") == 1
    verified(result)


@pytest.mark.slow
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("number", [3, 4, 5, 6, 7])
def test_a_coordinator_that_dies_goes_on_with_its_log(conduct, side, number):
    result = conduct(training={"rounds": 3}, dies=[(number, side)], **LOGGED)
    assert result.error is None
    assert kinds(result)[-1] == "model"
    verified(result)


@pytest.mark.slow
@pytest.mark.parametrize("last", ["plan", "permit", "sites"])
def test_a_log_that_was_half_begun_is_begun_to_its_end(conduct, monkeypatch, last):
    append, struck = StudyLog._append, []

    def end(self, kind, body, **where):
        append(self, kind, body, **where)
        if kind == last and not struck:
            struck.append(kind)
            raise Suspended

    keep = StudyLog.keep

    def end_keeping(self, kind, envelope, **where):
        keep(self, kind, envelope, **where)
        if kind == last and not struck:
            struck.append(kind)
            raise Suspended

    monkeypatch.setattr(StudyLog, "_append", end)
    monkeypatch.setattr(StudyLog, "keep", end_keeping)
    result = conduct(training={"rounds": 2}, **LOGGED)
    assert struck
    assert result.error is None
    assert kinds(result) == ["plan", *["permit"] * 4, "sites", "round", "round", *["spend"] * 4, "model"]
    verified(result)


@pytest.mark.slow
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("words", [LEFT_OUT, NAMED])
def test_a_site_cannot_say_that_the_coordinator_left_it_out(conduct, words, masked):
    def after(service, request, reply):
        if service.site.site == "lab-2" and request.action == "train" and request.fields["round"] == 2:
            return Reply(error={"message": words, "exit_code": 3, "code": "policy"})
        return reply

    result = conduct(training={"rounds": 3}, after=after, masked=masked, **LOGGED)
    assert result.error is None
    assert result.progress.dropped == [("lab-2", 2)]
    assert result.progress.reasons["lab-2", 2] == "it answered as if it had been left out"


def test_another_coordinator_s_log_is_not_joined(conduct, monkeypatch):
    other = SigningKey(Seed(b"o" * 32))

    def before(service, request):
        if service.site.site == "lab-1" and request.action == "prepare":
            service.keystore.pin_coordinator(other.public)
        return request

    result = conduct(training={"rounds": 1}, before=before, **LOGGED)
    assert isinstance(result.error, SiteFailed)
    assert "another key than before" in result.error.message


def test_an_unlogged_study_needs_every_site_s_consent(conduct):
    result = conduct(training={"rounds": 1}, policy={"unlogged_studies": False})
    assert isinstance(result.error, SiteFailed)
    assert "policy.unlogged_studies is false" in result.error.message


def test_two_histories_are_kept_as_proof_and_nothing_is_cosigned_any_more(conduct, tmp_path):
    """After the study the coordinator shows lab-1 a log with another beginning, signed by its own key."""
    services = {}

    def after(service, request, reply):
        services[service.site.site] = service
        return reply

    result = conduct(training={"rounds": 1}, after=after, **LOGGED)
    keys = json.loads((result.audit / "keys.json").read_bytes())
    sites = {site: bytes.fromhex(key) for site, key in keys["sites"].items()}
    other = AuditLog(
        tmp_path / "other", origin=f"fedsci/{keys['run']}", signer=result.log_key, sites=sites, quorum=keys["quorum"]
    )
    for number in range(12):
        other.append("plan", sign_statement("plan", {"run": keys["run"], "number": number}, [result.log_key]))
    note = other.checkpoint().decode()
    lab = services["lab-1"]
    size = len(kinds(result))
    assert lab.handle(ask(keys["run"], note, 3, [])).fields == {"size": size}
    proof = [b64encode(one).decode() for one in other.consistency_proof(size)]
    assert "two histories" in lab.handle(ask(keys["run"], note, size, proof)).error["message"]
    forks = lab.state / "witness" / "forks" / keys["run"]
    assert {path.name for path in forks.iterdir()} == {"first.note", "second.note", "proof.json"}
    assert (forks / "second.note").read_text() == note
    honest = (result.audit / "checkpoint").read_text()
    assert "two histories" in lab.handle(ask(keys["run"], honest, size, [])).error["message"]


def ask(run, note, old_size, proof):
    fields = {"run": run, "note": note, "old_size": old_size, "proof": proof, "entries": []}
    return Request(action="witness", fields=fields)


@pytest.mark.slow
def test_a_reply_without_cosignatures_is_no_witness(conduct):
    def after(service, request, reply):
        return Reply(fields={"cosignatures": ["— lab-1 AAAA"]}) if request.action == "witness" else reply

    result = conduct(training={"rounds": 1}, after=after, **LOGGED)
    assert isinstance(result.error, RoundAborted)
    with pytest.raises(VerificationFailed):
        verified(result)


def told_more(change):
    """A coordinator that shows lab-1 something else than it should, in every exchange about the log."""

    def before(service, request):
        if service.site.site == "lab-1" and request.action == "witness":
            return replace(request, fields=change(service, dict(request.fields)))
        return request

    return before


def test_a_round_that_is_in_the_log_and_not_shown_is_not_cosigned(conduct):
    """Else rounds that never were could be put behind those that sites have seen."""

    def hide(service, fields):
        return fields | {"entries": [one for one in fields["entries"] if '"round"' not in one["line"]]}

    result = conduct(training={"rounds": 1}, before=told_more(hide), **LOGGED)
    assert "every entry that is new" in " ".join(refusals(result, "lab-1"))


def test_a_round_that_is_shown_without_its_statement_is_not_cosigned(conduct):
    def mislead(service, fields):
        return fields | {"entries": [{name: one[name] for name in ("line", "proof")} for one in fields["entries"]]}

    result = conduct(training={"rounds": 1}, before=told_more(mislead), **LOGGED)
    assert "comes in its envelope" in " ".join(refusals(result, "lab-1"))


def refusals(result, site):
    return [one.reply.error["message"] for one in result.steps if one.site == site and one.reply.error]


def test_what_a_site_is_shown_of_no_log_that_it_would_cosign_changes_nothing(conduct, tmp_path):
    """A statement from a smaller tree that the coordinator also signed: no fork, refused, and not believed."""
    kept = {}

    def before(service, request):
        if service.site.site == "lab-2" and request.action == "train" and request.fields["round"] == 2:
            run = request.fields["run"]
            witness = service.state / "runs" / run / "witness.json"
            held = witness.read_bytes()
            body = {"run": run, "round": 1, "abandoned": True, "model": "sha256:" + "0" * 64, "sends": None}
            body |= {"survivors": [], "dropped": {}, "receipts": {}}
            said = sign_statement("round", body, [kept["key"]])
            other = AuditLog(
                tmp_path / "o", origin=f"fedsci/{run}", signer=kept["key"], sites={"lab-2": b"2" * 32}, quorum=1
            )
            other.append("round", said, round=1)
            fields = {"run": run, "note": other.checkpoint().decode(), "proof": [], "old_size": size_of(service, run)}
            line = other.entries()[0].line.decode()
            fields["entries"] = [{"line": line, "proof": [], "envelope": said.decode()}]
            answer = service.handle(Request(action="witness", fields=fields))
            kept.update({"error": answer.error, "same": witness.read_bytes() == held})
        return request

    append = StudyLog._append
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StudyLog, "_append", lambda self, *a, **b: (kept.update(key=self.key), append(self, *a, **b))[1])
        result = conduct(training={"rounds": 2}, before=before, **LOGGED)
    assert result.error is None
    assert kept["error"]
    assert kept["same"]


def size_of(service, run):
    return json.loads((service.state / "witness" / f"{run}.json").read_bytes())["size"]


def test_a_site_whose_cosignature_got_lost_is_in_the_next_round(conduct):
    lost = []

    def after(service, request, reply):
        if service.site.site == "lab-2" and request.action == "witness" and len(lost) < 2:
            lost.append(reply)
            raise RuntimeError("the answer got lost")
        return reply

    result = conduct(training={"rounds": 2}, after=after, **LOGGED)
    assert len(lost) == 2
    assert not result.progress.dropped
    verified(result)


def other_spend(change):
    """What lab-2 answers at the end, changed."""

    def after(service, request, reply):
        if service.site.site == "lab-2" and request.action == "finish":
            return Reply(fields=reply.fields | change(service, dict(reply.fields)))
        return reply

    return after


def signed_as(kind, key=None, **values):
    def change(service, fields):
        body = json.loads(b64decode(json.loads(fields["spend"])["payload"])) | values
        return {"spend": sign_statement(kind, body, [key or service.keystore.signing_key()]).decode()}

    return change


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda service, fields: {"spend": "nonsense"},
        lambda service, fields: {"spend": fields["spend"].rstrip()},
        lambda service, fields: {"privacy": fields["privacy"] | {"rounds_charged": 7}},
        signed_as("permit"),
        signed_as("spend", SigningKey(Seed(b"x" * 32))),
        signed_as("spend", run="0" * 32),
        signed_as("spend", site="lab-1"),
    ],
)
def test_a_site_that_signs_nonsense_at_the_end_spoils_only_its_own_charge(conduct, change):
    result = conduct(training={"rounds": 1}, after=other_spend(change), **LOGGED)
    assert result.error is None
    assert "lab-2" not in result.progress.settled
    assert kinds(result)[-4:] == ["spend"] * 3 + ["model"]
    verified(result)


@pytest.mark.parametrize("kind", ["permit", "spend"])
def test_a_permit_that_its_site_did_not_sign_ends_the_study_before_it_is_logged(conduct, kind):
    def after(service, request, reply):
        if service.site.site == "lab-2" and request.action == "prepare":
            body = json.loads(b64decode(json.loads(reply.fields["permit"])["payload"]))
            other = sign_statement(kind, body, [SigningKey(Seed(b"x" * 32))]).decode()
            return Reply(fields=reply.fields | {"permit": other})
        return reply

    result = conduct(training={"rounds": 1}, after=after, **LOGGED)
    assert isinstance(result.error, VerificationFailed)
    assert "lab-2: its permit is not one that the log can hold" in result.error.message
    assert not result.said("train")


@pytest.mark.slow
def test_a_site_whose_cosignature_got_lost_and_that_missed_the_next_is_told_again_at_once(conduct):
    """It is behind by one checkpoint, and not where the coordinator takes it to be: one request more, no round lost."""
    exchanges = []

    def before(service, request):
        if service.site.site == "lab-2" and request.action == "witness":
            exchanges.append(request)
            if len(exchanges) in (3, 4):  # of the second round; asked again, it is away, too
                raise RuntimeError("away")
        return request

    def after(service, request, reply):
        lost = service.site.site == "lab-2" and request.action == "witness" and len(exchanges) == 2
        return Reply(error={"code": "transport", "exit_code": 5, "message": "lost"}) if lost else reply

    result = conduct(training={"rounds": 4}, before=before, after=after, **LOGGED)
    assert result.error is None
    assert result.progress.dropped == []
    assert any(reply.error for reply in [step.reply for step in result.steps if step.action == "train"])
    verified(result)


@pytest.mark.parametrize("change", [{"rounds": 7}, {"plan": "sha256:" + "0" * 64}, {"epsilon": 1.0}])
def test_a_permit_for_something_else_ends_the_study_before_anything_is_trained(conduct, change):
    def after(service, request, reply):
        if service.site.site != "lab-2" or request.action != "prepare":
            return reply
        body = dict(peek(reply.fields["permit"].encode())[1]) | change
        permit = sign_statement("permit", body, [service.keystore.signing_key()]).decode()
        return replace(reply, fields={**reply.fields, "permit": permit})

    result = conduct(training={"rounds": 2}, after=after, **LOGGED)
    assert "lab-2: its permit is not one that the log can hold" in result.error.message
    assert "train" not in result.exchanges
