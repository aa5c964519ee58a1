"""A permit lets in what it says and nothing else: every field of it is compared, under every signature it needs."""

from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest

from fedsci.audit.statement import add_signature, open_statement, sign_statement
from fedsci.config.site import load_site
from fedsci.errors import BudgetRefused, VerificationFailed
from fedsci.secagg import Seed, SigningKey
from fedsci.site.keystore import Keystore
from fedsci.site.ledger import open_ledger
from fedsci.site.ledger_store import GENESIS
from fedsci.site.permit import (
    KIND,
    Held,
    Permit,
    PermitRefused,
    Terms,
    commit_content,
    initial_model,
    make_permit,
    permit_in,
    read_permit,
    seconds_of,
    sign_permit,
    terms_of,
    utc,
    vector_digest,
)
from fedsci.site.permit_check import Signatories, check_first, check_held, check_permit, check_round
from fedsci.training.learner import module_for
from fedsci.training.models import initial_vector
from fedsci.training.schema import schema_of

NOW = seconds_of("2026-05-03T10:00:00Z")
SITE, ADA, STRANGER = (SigningKey(Seed(bytes([number]) * 32)) for number in (1, 2, 3))
CONTENT = "hmac-sha256:" + 64 * "c"


@pytest.fixture
def site(make_lab):
    return load_site(make_lab())


@pytest.fixture
def keystore(tmp_path):
    keystore = Keystore(tmp_path / "state")
    (tmp_path / "state").mkdir()
    keystore.pin_consortium(bytes(range(32)))
    return keystore


class Entries:
    """A ledger of three entries, as far as a permit asks."""

    hashes = (GENESIS, *("sha256:" + 64 * digit for digit in "789"))

    def number_of(self, digest):
        return self.hashes.index(digest) if digest in self.hashes else None


@pytest.fixture
def ledger():
    return Entries()


@pytest.fixture
def real_ledger(site, tmp_path):
    ledger = open_ledger(site, tmp_path / "state")
    for run in ("1" * 32, "2" * 32, "3" * 32):
        ledger.record_no_privacy("points", run)
    return ledger


@pytest.fixture
def terms(make_plan, site, keystore):
    return terms_of(make_plan(), site, keystore)


@pytest.fixture
def held(ledger):
    return Held(record=None, content=CONTENT, ledger_entries=2, ledger_head=ledger.hashes[2])  # it went on since


@pytest.fixture
def permit(terms, held):
    return make_permit(terms, held, now=NOW, second=None, start_hours=72, run_days=90)


def check(envelope, terms, ledger, *, nonce, now=NOW, starts=True, second=None, content=CONTENT, record=None):
    """All that a site compares before it lets a study in."""
    who = Signatories(site=SITE.public, second={"ada": ADA.public} if second is None else second)
    read = check_permit(envelope, terms, who=who, nonce=nonce, now=now, starts=starts)
    check_held(read, ledger, record=record, content=lambda: content)
    return read


OTHER = {
    "version": 2,
    "site": "lab-9",
    "study": "other",
    "plan": "sha256:" + 64 * "1",
    "rounds": 3,
    "initial_model": "sha256:" + 64 * "2",
    "fedsci": "0.0.1",
    "software": "sha256:" + 64 * "3",
    "epsilon": 5.0,
    "delta": 1e-4,
    "min_cohort": 1,
    "coordinator": "ff" * 32,
    "safety_critical": True,
    "not_before": "2026-05-03T10:00:01Z",
    "start_by": "2026-05-03T10:00:00Z",
    "not_after": "2026-05-03T10:00:00Z",
    "record": "sha256:" + 64 * "4",
    "content": "hmac-sha256:" + 64 * "5",
    "ledger_entries": 1,
    "ledger_head": "sha256:" + 64 * "6",
    "nonce": 32 * "f",
    "signers": ["lab-9"],
}


def test_a_permit_lets_in_what_it_says(permit, terms, ledger):
    envelope = sign_permit(permit, [SITE])
    assert check(envelope, terms, ledger, nonce=permit.nonce) == permit == permit_in(envelope)
    assert open_statement(KIND, envelope, [SITE.public]).body == permit.to_json()
    assert len(envelope) < 4096


def test_every_field_is_tried():
    assert set(OTHER) == {one.name for one in fields(Permit)}


@pytest.mark.parametrize("field", OTHER)
def test_each_field_has_its_own_refusal(field, permit, terms, ledger):
    body = permit.to_json() | {field: OTHER[field]}
    assert body != permit.to_json()
    with pytest.raises(PermitRefused) as refused:
        check(sign_statement(KIND, body, [SITE]), terms, ledger, nonce=permit.nonce)
    assert refused.value.field == field
    assert refused.value.public_message.startswith(f"permit: {field}")
    assert (refused.value.exit_code, refused.value.code) == (4, "policy")


@pytest.mark.parametrize("field", OTHER)
def test_a_field_that_was_changed_after_the_signature_breaks_it(field, permit, terms, ledger):
    signatures = sign_permit(permit, [SITE])
    forged = sign_statement(KIND, permit.to_json() | {field: OTHER[field]}, [STRANGER])
    envelope = forged[: forged.index(b'"signatures"')] + signatures[signatures.index(b'"signatures"') :]
    with pytest.raises(PermitRefused) as refused:
        check(envelope, terms, ledger, nonce=permit.nonce)
    assert refused.value.field == "signature"


def test_no_two_refusals_read_the_same(permit, terms, ledger):
    said = set()
    for field, value in OTHER.items():
        with pytest.raises(PermitRefused) as refused:
            check(sign_statement(KIND, permit.to_json() | {field: value}, [SITE]), terms, ledger, nonce=permit.nonce)
        said.add(refused.value.public_message)
    assert len(said) == len(OTHER)


@pytest.mark.parametrize("field", [one.name for one in fields(Terms)])
def test_each_thing_that_is_asked_otherwise_is_refused(field, permit, terms, ledger):
    asked = Terms(**{**asdict(terms), field: OTHER[field]})
    with pytest.raises(PermitRefused) as refused:
        check(sign_permit(permit, [SITE]), asked, ledger, nonce=permit.nonce)
    assert refused.value.field == field


@pytest.mark.parametrize("field", OTHER)
def test_a_field_of_another_type_is_refused(field, permit):
    right = {"record": [None], "coordinator": [None], "epsilon": [None, 0.5], "delta": [None, 0.5]}
    for value in (None, True, -1, 0.5, "", [], {}, "x" * 2000):
        if value in right.get(field, []) or (field == "safety_critical" and value is True):
            continue
        with pytest.raises(PermitRefused) as refused:
            read_permit(permit.to_json() | {field: value})
        assert refused.value.field == field


def test_a_field_more_or_less_is_refused(permit, terms, ledger):
    body = permit.to_json()
    for changed, field in ((body | {"more": 1}, "more"), ({k: v for k, v in body.items() if k != "nonce"}, "nonce")):
        with pytest.raises(PermitRefused) as refused:
            check(sign_statement(KIND, changed, [SITE]), terms, ledger, nonce=permit.nonce)
        assert refused.value.field == field


def test_another_statement_of_the_site_is_no_permit(permit, terms, ledger):
    with pytest.raises(PermitRefused) as refused:
        check(sign_statement("spend", permit.to_json(), [SITE]), terms, ledger, nonce=permit.nonce)
    assert refused.value.field == "signature"
    with pytest.raises(PermitRefused, match="this is a spend"):
        permit_in(sign_statement("spend", permit.to_json(), [SITE]))
    with pytest.raises(VerificationFailed):
        permit_in(b"{}")


@pytest.mark.parametrize("keys", [[STRANGER], [ADA]])
def test_a_permit_of_another_key_is_refused(keys, permit, terms, ledger):
    with pytest.raises(PermitRefused, match="lab-1 has not signed"):
        check(sign_permit(permit, keys), terms, ledger, nonce=permit.nonce)


def test_it_holds_from_its_beginning_until_its_ends(permit, terms, ledger):
    envelope = sign_permit(permit, [SITE])
    start_by, not_after = seconds_of(permit.start_by), seconds_of(permit.not_after)
    assert (start_by - NOW, not_after - start_by) == (72 * 3600, 90 * 24 * 3600)
    check(envelope, terms, ledger, nonce=permit.nonce, now=start_by - 1)
    check(envelope, terms, ledger, nonce=permit.nonce, now=start_by, starts=False)
    for now, starts, field in (
        (NOW - 1, True, "not_before"),
        (start_by, True, "start_by"),
        (not_after, False, "not_after"),
    ):
        with pytest.raises(PermitRefused) as refused:
            check(envelope, terms, ledger, nonce=permit.nonce, now=now, starts=starts)
        assert refused.value.field == field


def test_times_have_one_spelling():
    assert utc(NOW) == "2026-05-03T10:00:00Z"
    for text in ("2026-05-03T10:00:00", "2026-5-3T10:00:00Z", "2026-05-03 10:00:00Z", "2026-02-30T00:00:00Z", " "):
        with pytest.raises(ValueError, match=r".*"):
            seconds_of(text)


def test_rounds_beyond_it_or_after_its_end_are_refused(permit):
    check_round(permit, number=permit.rounds, now=NOW)
    check_round(permit, now=seconds_of(permit.not_after) - 1)
    with pytest.raises(PermitRefused, match="round 3 is beyond the 2 permitted"):
        check_round(permit, number=3, now=NOW)
    with pytest.raises(PermitRefused, match="not_after: it ended at"):
        check_round(permit, number=1, now=seconds_of(permit.not_after))


# two signers


@pytest.fixture
def critical(make_plan, site, keystore, held):
    terms = terms_of(make_plan(safety_critical=True), site, keystore)
    return terms, make_permit(terms, held, now=NOW, second="ada", start_hours=72)


def test_a_safety_critical_study_needs_two_signatures(critical, ledger):
    terms, permit = critical
    one = sign_permit(permit, [SITE])
    with pytest.raises(PermitRefused, match="ada has not signed"):
        check(one, terms, ledger, nonce=permit.nonce)
    with pytest.raises(PermitRefused, match="lab-1 has not signed"):
        check(sign_permit(permit, [ADA]), terms, ledger, nonce=permit.nonce)
    with pytest.raises(PermitRefused, match="ada has not signed"):
        check(add_signature(one, STRANGER), terms, ledger, nonce=permit.nonce)
    assert check(add_signature(one, ADA), terms, ledger, nonce=permit.nonce) == permit


def test_two_signers_that_are_one_are_refused(critical, ledger):
    terms, permit = critical
    twice = sign_permit(permit, [SITE, SITE])
    with pytest.raises(PermitRefused, match="ada has not signed"):
        check(twice, terms, ledger, nonce=permit.nonce)
    with pytest.raises(PermitRefused, match="one key is one signer"):
        check(twice, terms, ledger, nonce=permit.nonce, second={"ada": SITE.public})


@pytest.mark.parametrize("signers", [["lab-1"], ["ada", "lab-1"], ["lab-1", "lab-1"], ["lab-1", "ben"]])
def test_the_permit_names_both_signers(critical, ledger, signers):
    terms, permit = critical
    envelope = sign_statement(KIND, permit.to_json() | {"signers": signers}, [SITE, ADA])
    with pytest.raises(PermitRefused) as refused:
        check(envelope, terms, ledger, nonce=permit.nonce)
    assert refused.value.field == "signers"


def test_a_second_signature_that_nobody_needs_is_no_other_permit(permit, terms, ledger):
    assert check(sign_permit(permit, [SITE, ADA]), terms, ledger, nonce=permit.nonce) == permit
    body = permit.to_json() | {"signers": ["lab-1", "ada"]}
    with pytest.raises(PermitRefused, match="needed: the site alone"):
        check(sign_statement(KIND, body, [SITE, ADA]), terms, ledger, nonce=permit.nonce)


# what of the site goes in


def test_the_initial_model_is_where_training_starts(make_plan):
    plan = make_plan(model={"name": "mlp", "hidden": [4]}, seed=7)
    vector = initial_vector(module_for(plan, inputs=schema_of(plan.study).width), seed=7)
    assert initial_model(plan) == vector_digest(vector)
    assert initial_model(make_plan(model={"name": "mlp", "hidden": [4]}, seed=8)) != vector_digest(vector)


def test_a_first_round_from_another_model_is_refused(make_plan, permit):
    plan = make_plan(model={"name": "mlp", "hidden": [4]})
    vector = initial_vector(module_for(plan, inputs=schema_of(plan.study).width), seed=plan.study.seed)
    check_first(plan, vector, permit)
    vector[3] = np.nextafter(vector[3], np.float32(9))
    with pytest.raises(PermitRefused) as refused:
        check_first(plan, vector, permit)
    assert refused.value.field == "initial_model"


def test_scaffold_starts_from_the_model_and_no_control(make_plan, permit):
    changes = {"strategy": "scaffold", "privacy": {"mechanism": "none", "epsilon": None}}
    plan = make_plan(**changes, recipe={"name": "scaffold"})
    vector = np.zeros(2 * 3, np.float32)
    check_first(plan, vector, permit)
    vector[-1] = 1
    with pytest.raises(PermitRefused, match="initial_model"):
        check_first(plan, vector, permit)


def test_content_is_told_to_nobody_who_could_try_it_out(keystore, tmp_path):
    digest = "sha256:" + 64 * "a"
    said = commit_content(digest, keystore)
    assert said == commit_content(digest, keystore)
    assert digest[7:] not in said
    assert said != commit_content("sha256:" + 64 * "b", keystore)
    assert said == commit_content(digest, Keystore(tmp_path / "state"))  # another process of the same site
    assert said != commit_content(digest, Keystore(tmp_path / "another"))


def test_privacy_is_a_ceiling_only_where_there_is_any(make_plan, site, keystore):
    asked = terms_of(make_plan(), site, keystore)
    assert (asked.epsilon, asked.delta) == (4.0, 1e-5)
    asked = terms_of(make_plan(privacy={"mechanism": "none"}), site, keystore)
    assert (asked.epsilon, asked.delta) == (None, None)


def test_plans_that_are_not_safety_critical_keep_their_digests(make_plan):
    assert "safety_critical" not in make_plan().to_json()["study"]
    assert make_plan(safety_critical=True).digest != make_plan().digest


def test_a_ledger_knows_its_entries_by_hash(real_ledger):
    ledger = real_ledger
    entries = ledger.entries()
    assert [ledger.number_of(entry.hash) for entry in entries] == [1, 2, 3]
    assert (ledger.number_of(GENESIS), ledger.number_of("sha256:" + 64 * "0" + "1")) == (0, None)
    assert ledger.head() == (3, entries[-1].hash)


def test_a_ledger_that_was_rolled_back_refuses_a_permit_of_later(site, terms, tmp_path, real_ledger):
    number, head = real_ledger.head()
    later = Held(record=None, content=CONTENT, ledger_entries=number, ledger_head=head)
    permit = make_permit(terms, later, now=NOW, second=None, start_hours=72)
    other = open_ledger(site.model_copy(update={"anchor": str(tmp_path / "anchor")}), tmp_path / "other")
    with pytest.raises(PermitRefused, match="ledger_head"):
        check(sign_permit(permit, [SITE]), terms, other, nonce=permit.nonce)
    (tmp_path / "anchors" / "lab-1.json").unlink()
    with pytest.raises(BudgetRefused):
        check(sign_permit(permit, [SITE]), terms, real_ledger, nonce=permit.nonce)


def test_the_page_on_permits_lists_every_field():
    page = (Path(__file__).parents[2] / "docs" / "permits.md").read_text()
    signed, refusals = page.split("## What a refusal means")
    for one in fields(Permit):
        assert f"`{one.name}`" in signed
        assert f"`{one.name}`" in refusals or one.name == "nonce"
