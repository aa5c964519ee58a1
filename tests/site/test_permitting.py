"""From a word to a run: who must sign, what is asked again at the start, and that a permit is for one run."""

import json
import secrets
from dataclasses import replace

import numpy as np
import pytest
import yaml

from fedsci.audit.statement import open_statement
from fedsci.config.site import load_site
from fedsci.errors import ConfigError, InputError, PolicyRefused
from fedsci.secagg import Seed, SigningKey
from fedsci.site.keystore import Keystore
from fedsci.site.permit import permit_in, sign_permit
from fedsci.site.permitting import Permitting
from fedsci.site.service import SiteService
from fedsci.transport.messages import Request

ADA, BEN = (SigningKey(Seed(bytes([number]) * 32)) for number in (4, 5))
MODEL = np.zeros(3, np.float32)
RECORDS = {f"lab-{number}": [40, 20] for number in (1, 2, 3)}
CLEAR = {"enabled": False}


class Clock:
    now = 1_800_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def serve(make_lab, tmp_path, clock):
    """A site's process, with a clock of the test's; the same state folder for every one of a test."""

    def start(**policy):
        service = SiteService(load_site(make_lab(policy=policy)), tmp_path / "state")
        service.permitting = Permitting(service.site, tmp_path / "state", clock=clock)
        return service

    return start


@pytest.fixture
def plan(make_plan):
    return make_plan(secure_aggregation=CLEAR)


@pytest.fixture
def critical(make_plan):
    return make_plan(secure_aggregation=CLEAR, safety_critical=True)


def ask(service, action, run, *, vector=None, **fields):
    return service.handle(Request(action=action, fields={"run": run} | fields, vector=vector))


def prepare(service, plan, run=None):
    return ask(service, "prepare", run or secrets.token_hex(16), plan=plan.to_bytes().decode())


def propose(service, plan):
    return service.handle(Request(action="propose", fields={"plan": plan.to_bytes().decode()}))


def train(service, run, number=1):
    return ask(service, "train", run, round=number, records=RECORDS, vector=MODEL)


def sign(service, plan, **options):
    assert propose(service, plan).fields == {"approval": "pending"}
    return service.permitting.sign(service.permitting.approvals.find(plan.digest), who="eve", **options)


def nothing_charged(service):
    return [entry.kind for entry in service.ledger.entries()] == []


def refused(reply, *parts):
    assert reply.error is not None
    assert reply.error["code"] == "policy"
    for part in parts:
        assert part in reply.error["message"]
    return reply.error["message"]


def test_where_the_policy_lets_studies_in_the_site_signs_itself(serve, plan):
    service, run = serve(), secrets.token_hex(16)
    reply = prepare(service, plan, run)
    assert reply.error is None
    envelope = reply.fields["permit"].encode()
    opened = open_statement("permit", envelope, [service.keystore.signing_key().public])
    permit = permit_in(envelope)
    assert (opened.body["plan"], permit.signers, permit.rounds) == (plan.digest, ("lab-1",), 2)
    assert (permit.ledger_entries, permit.epsilon, permit.min_cohort) == (0, 4.0, 3)
    assert train(service, run).error is None
    assert envelope.decode() in (service.state / "runs" / run / "permit.json").read_text()


def test_two_runs_have_two_permits(serve, plan):
    service = serve()
    first, second = (permit_in(prepare(service, plan).fields["permit"].encode()) for _ in range(2))
    assert first.nonce != second.nonce
    assert second.ledger_entries == 2  # register, reserve


def test_an_operator_signs_what_then_runs_once(serve, plan):
    service = serve(approval="manual")
    refused(prepare(service, plan), "every study needs the operator's approval")
    signed = sign(service, plan)
    assert propose(service, plan).fields == {"approval": "given"}
    assert nothing_charged(service)
    reply = prepare(service, plan)
    assert reply.fields["permit"] == signed.file.read_text()
    assert f"sha256:{signed.file.stem}" == signed.digest
    refused(prepare(service, plan), "every study needs the operator's approval")


def test_a_permit_is_never_used_for_another_run(serve, plan):
    service = serve(approval="manual")
    sign(service, plan)
    (decision,) = (service.state / "approvals").glob("*.json")
    before = decision.read_text()
    assert prepare(service, plan).error is None
    decision.write_text(before)  # as from a backup
    entries = len(service.ledger.entries())
    refused(prepare(service, plan), "permit: run: it was used for another run")
    assert len(service.ledger.entries()) == entries


def test_the_use_is_durable_before_anything_is_charged(serve, plan, monkeypatch):
    service = serve(approval="manual")
    sign(service, plan)
    monkeypatch.setattr(type(service.charging), "charge", lambda *_, **__: (_ for _ in ()).throw(RuntimeError))
    assert prepare(service, plan).error["code"] == "internal"
    assert nothing_charged(service)
    (used,) = (service.state / "permits" / "used").iterdir()
    assert len(used.read_text()) == 32
    monkeypatch.undo()
    refused(prepare(service, plan), "every study needs the operator's approval")


def test_data_that_was_changed_since_is_refused_before_anything_is_charged(serve, plan, tmp_path):
    service = serve(approval="manual")
    sign(service, plan)
    with (tmp_path / "lab-1.csv").open("a") as file:
        file.write("0.5,0.25,1\n")
    refused(prepare(service, plan), "permit: content")
    assert nothing_charged(service)


def test_another_version_than_was_signed_for_is_refused(serve, plan, monkeypatch):
    service = serve(approval="manual")
    sign(service, plan)
    from fedsci.site import permit

    found = permit.software()
    monkeypatch.setattr(permit, "software", lambda: replace(found, digest="sha256:" + 64 * "0"))
    refused(prepare(service, plan), "permit: software", "restart the site after an update")


def test_it_may_start_within_its_hours_and_compute_within_its_days(serve, plan, clock):
    service, run = serve(approval="manual"), secrets.token_hex(16)
    sign(service, plan, hours=2, days=1)
    clock.now += 2 * 3600 - 1
    assert prepare(service, plan, run).error is None
    clock.now += 24 * 3600
    assert train(service, run).error is None
    clock.now += 1
    refused(train(service, run, 2), "permit: not_after")
    assert ask(service, "finish", run).error is None


def test_an_approval_that_expired_is_a_question_again(serve, plan, clock):
    service = serve(approval="manual")
    sign(service, plan, hours=2)
    clock.now += 2 * 3600
    refused(prepare(service, plan), "every study needs the operator's approval")


@pytest.mark.parametrize("policy", [{}, {"approval": "manual"}])
def test_another_process_goes_on_by_the_same_permit(serve, plan, clock, policy):
    service, run = serve(**policy), secrets.token_hex(16)
    if policy:
        sign(service, plan)
    assert prepare(service, plan, run).error is None
    assert train(service, run).error is None
    assert train(serve(**policy), run, 2).error is None


def test_another_process_does_not_go_on_without_or_by_another(serve, make_plan):
    service, plan = serve(), make_plan(secure_aggregation=CLEAR, privacy={"epsilon": 1.0})
    runs = [secrets.token_hex(16) for _ in range(3)]
    files = [service.state / "runs" / run / "permit.json" for run in runs]
    for run in runs:
        assert prepare(service, plan, run).error is None
    other, third = files[1].read_bytes(), permit_in(files[2].read_bytes())
    files[0].write_bytes(other)
    refused(train(serve(), runs[0]), "permit: run: it was not used for this run")
    files[1].unlink()
    refused(train(serve(), runs[1]), "this run has no permit")
    files[2].write_bytes(sign_permit(replace(third, rounds=9), [service.keystore.signing_key()]))
    refused(train(serve(), runs[2]), "permit: rounds")


def test_the_first_round_starts_where_the_permit_says(serve, plan):
    service, run = serve(), secrets.token_hex(16)
    assert prepare(service, plan, run).error is None
    fields = {"round": 1, "records": RECORDS}
    refused(ask(service, "train", run, **fields, vector=MODEL + 1), "permit: initial_model")
    assert [entry.kind for entry in service.ledger.entries()] == ["register", "reserve"]


# two signers


def two(service, plan):
    signed = sign(service, plan)
    return signed, service.permitting.countersign(signed.asked, ADA)


@pytest.mark.parametrize("approval", ["auto", "manual"])
def test_a_safety_critical_study_runs_when_two_have_signed(serve, critical, approval):
    service = serve(approval=approval, second_signers={"ada": ADA.public.hex()})
    refused(prepare(service, critical), "needs the operator's approval and a second signature")
    signed = sign(service, critical)
    assert (signed.asked.state, signed.permit.signers) == ("signed", ("lab-1", "ada"))
    assert propose(service, critical).fields == {"approval": "pending"}
    refused(prepare(service, critical), "lacks the signature of its second signer, ada")
    assert nothing_charged(service)
    done = service.permitting.countersign(signed.asked, ADA)
    assert (done.digest, done.asked.state) == (signed.digest, "approved")
    assert propose(service, critical).fields == {"approval": "given"}
    reply = prepare(service, critical)
    assert reply.error is None
    open_statement("permit", reply.fields["permit"].encode(), [service.keystore.signing_key().public, ADA.public])


def test_where_nobody_may_sign_beside_the_site_it_is_refused_at_once(serve, critical):
    message = "policy.second_signers names nobody"
    for policy in ({}, {"approval": "manual"}):
        refused(propose(serve(**policy), critical), message)
        refused(prepare(serve(**policy), critical), message)


def test_who_signs_second_is_somebody_else_and_known(serve, critical, plan):
    service = serve(second_signers={"ada": ADA.public.hex()})
    assert propose(service, critical).fields == {"approval": "pending"}
    find = service.permitting.approvals.find
    with pytest.raises(InputError, match="the site has not signed tiny yet"):
        service.permitting.countersign(find("tiny"), ADA)
    signed = service.permitting.sign(find("tiny"), who="eve")
    with pytest.raises(PolicyRefused, match="is not ada's"):
        service.permitting.countersign(signed.asked, BEN)
    with pytest.raises(PolicyRefused, match="one key is one signer"):
        service.permitting.countersign(signed.asked, service.keystore.signing_key())
    done = service.permitting.countersign(signed.asked, ADA)
    with pytest.raises(InputError, match="has both signatures already"):
        service.permitting.countersign(done.asked, ADA)
    manual = serve(approval="manual", second_signers={"ada": ADA.public.hex()})
    signed = sign(manual, plan)
    with pytest.raises(InputError, match="is not safety-critical"):
        manual.permitting.countersign(signed.asked, ADA)
    with pytest.raises(InputError, match="is not safety-critical"):
        manual.permitting.sign(signed.asked, who="eve", second="ada")


def test_two_signers_that_are_one_do_not_count_as_two(serve, critical, make_lab):
    """The site's own key, written down under another name; and one key under two names."""
    service = serve()
    own = service.keystore.signing_key()
    service = serve(second_signers={"ada": own.public.hex()})
    signed = sign(service, critical)
    with pytest.raises(PolicyRefused, match="one key is one signer"):
        service.permitting.countersign(signed.asked, own)
    service.permitting.approvals.countersign(signed.asked)  # whoever can write the state folder
    refused(prepare(service, critical), "permit: signers", "one key is one signer")
    with pytest.raises(ConfigError, match="ada and ben have the same key"):
        load_site(make_lab(policy={"second_signers": {"ada": ADA.public.hex(), "ben": ADA.public.hex()}}))


def test_a_decision_alone_does_not_stand_for_the_second_signature(serve, critical):
    service = serve(second_signers={"ada": ADA.public.hex()})
    signed = sign(service, critical)
    service.permitting.approvals.countersign(signed.asked)
    refused(prepare(service, critical), "permit: signature: ada has not signed")
    assert nothing_charged(service)


def test_a_signer_who_was_taken_off_the_list_signs_nothing_any_more(serve, critical):
    service, run = serve(second_signers={"ada": ADA.public.hex()}), secrets.token_hex(16)
    two(service, critical)
    other = serve(second_signers={"ben": BEN.public.hex()})
    refused(prepare(other, critical, run), "permit: signers: ada is no second signer")


def test_of_several_one_is_named(serve, critical):
    service = serve(second_signers={"ada": ADA.public.hex(), "ben": BEN.public.hex()})
    with pytest.raises(InputError, match="needs a second signer") as error:
        sign(service, critical)
    assert "names ada, ben; name one with --second" in error.value.hint
    asked = service.permitting.approvals.find("tiny")
    with pytest.raises(InputError, match="eve may not sign"):
        service.permitting.sign(asked, who="eve", second="eve")
    signed = service.permitting.sign(asked, who="eve", second="ben")
    with pytest.raises(PolicyRefused, match="is not ben's"):
        service.permitting.countersign(signed.asked, ADA)
    assert service.permitting.countersign(signed.asked, BEN).asked.state == "approved"
    assert service.permitting.preview(critical).signers == ("lab-1", "ada or ben")


@pytest.mark.parametrize("key", ["", "xyz", "ab" * 31, "AB" * 32, "ab" * 32 + "a"])
def test_a_second_signer_has_a_public_key(make_lab, key):
    with pytest.raises(ConfigError, match=r"second_signers.ada is not a public key"):
        load_site(make_lab(policy={"second_signers": {"ada": key}}))


def test_a_permit_file_that_was_exchanged_is_refused(serve, plan):
    service = serve(approval="manual")
    first = sign(service, plan)
    service.permitting.sign(first.asked, who="eve")
    second = service.permitting.approvals.find("tiny")
    service.permitting.permits.path(second.permit).write_bytes(first.file.read_bytes())
    refused(prepare(service, plan), "permit: digest: the permit is not the one that was decided on")
    service.permitting.permits.path(second.permit).unlink()
    refused(prepare(service, plan), "permit: digest: the permit cannot be read")


def test_a_permit_of_another_consortium_is_refused(serve, plan, tmp_path):
    service = serve(approval="manual")
    Keystore(tmp_path / "state").pin_consortium(bytes(32))
    sign(service, plan)
    (tmp_path / "state" / "consortium.pub").unlink()
    Keystore(tmp_path / "state").pin_consortium(bytes(31) + b"\1")
    refused(prepare(service, plan), "permit: coordinator", "another consortium")


def test_nothing_in_a_permit_tells_what_is_in_the_data(serve, plan, tmp_path):
    service = serve()
    text = json.dumps(permit_in(prepare(service, plan).fields["permit"].encode()).to_json())
    (source,) = yaml.safe_load((tmp_path / "lab-1.yaml").read_text())["datasets"].values()
    from fedsci.site.dataset import content_digest

    digest = content_digest(service.site, service.site.datasets["points"])
    assert digest[7:] not in text
    assert source["path"] not in text
