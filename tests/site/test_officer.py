"""Budgets change by the officer's signature and no other way."""

import json
import sqlite3

import pytest

from fedsci.errors import BudgetRefused, InputError, PolicyRefused
from fedsci.privacy.calibration import charged_plan
from fedsci.secagg import Seed, SigningKey
from fedsci.site.ledger import Ledger
from fedsci.site.ledger_store import _HASHED, _hash_of
from fedsci.site.officer import default_key_path, is_signed, officer_key, sign

BUDGET = {"epsilon": 8.0, "delta": 1e-5, "unit": "record"}
KEY, STRANGER = SigningKey(Seed(b"o" * 32)), SigningKey(Seed(b"x" * 32))
PINNED = KEY.public.hex()


@pytest.fixture
def state(tmp_path):
    return tmp_path / "lab-1"


@pytest.fixture
def ledger(state):
    ledger = Ledger(state)
    ledger.register("heart", **BUDGET)
    return ledger


def events(rounds):
    return charged_plan(noise_multiplier=4.0, sample_rate=1.0, steps=rounds, dimension=10)


def reserve(ledger, policy, run="a" * 32, rounds=30):
    asked = {"rounds": rounds, "measurements": 0, "distance": 1e-20}
    return ledger.reserve("heart", run, policy=policy, plan=events, **asked)


def test_a_change_is_signed_says_why_and_holds_from_then_on(ledger, state):
    old, new = ledger.change_budget("heart", epsilon=10.0, delta=None, reason="board vote", key=KEY)
    assert (old.epsilon, new.epsilon, new.delta, new.order) == (8.0, 10.0, 1e-5, old.order)
    body = Ledger(state).entries()[-1].body
    assert (body["old"], body["new"], body["reason"], body["key"]) == ([8.0, 1e-5], [10.0, 1e-5], "board vote", PINNED)
    assert Ledger(state).register("heart", epsilon=10.0, delta=1e-5, unit="record") == new
    with pytest.raises(BudgetRefused, match=r"the site file says epsilon 8, .* says epsilon 10") as refused:
        Ledger(state).register("heart", **BUDGET)
    assert "fedsci privacy set SITE heart --epsilon 8 --delta 1e-05 --reason TEXT" in refused.value.hint


def test_raising_admits_more_at_the_same_order(ledger):
    policy = ledger.register("heart", **BUDGET)
    reserve(ledger, policy)
    with pytest.raises(BudgetRefused):
        reserve(ledger, policy, "b" * 32)
    _, more = ledger.change_budget("heart", epsilon=16.0, delta=None, reason="why not", key=KEY)
    reserve(ledger, more, "b" * 32)
    assert more.order == policy.order


def test_lowered_below_what_is_spent_nothing_more_is_admitted_and_what_runs_goes_on(ledger):
    reserve(ledger, ledger.register("heart", **BUDGET))
    for epsilon in (1.0, 0.01):  # the latter is less than the frozen order can show at all
        _, low = ledger.change_budget("heart", epsilon=epsilon, delta=None, reason="a complaint", key=KEY)
        with pytest.raises(BudgetRefused, match="would pass the budget"):
            reserve(ledger, low, "b" * 32, rounds=1)
    ledger.step("heart", "a" * 32, 1)
    assert ledger.settle("heart", "a" * 32, policy=low, used=lambda rounds, _: events(rounds)) == (1, 0)
    assert ledger.inspect().books.accounts["heart"].highest_epsilon == 8.0


def test_another_key_is_refused_whether_pinned_by_the_site_file_or_by_the_first_change(ledger, state):
    pinned = Ledger(state, officer=PINNED)
    with pytest.raises(PolicyRefused, match="is not the privacy officer's"):
        pinned.change_budget("heart", epsilon=80.0, delta=None, reason="more", key=STRANGER)
    ledger.change_budget("heart", epsilon=10.0, delta=None, reason="board vote", key=KEY)
    with pytest.raises(PolicyRefused, match="is not the privacy officer's"):
        ledger.change_budget("heart", epsilon=80.0, delta=None, reason="more", key=STRANGER)


def test_a_change_by_a_key_that_the_site_file_does_not_name_refuses_everything(ledger, state):
    ledger.change_budget("heart", epsilon=80.0, delta=None, reason="more", key=STRANGER)
    pinned = Ledger(state, officer=PINNED)
    for use in (pinned.entries, lambda: pinned.register("heart", epsilon=80.0, delta=1e-5, unit="record")):
        with pytest.raises(BudgetRefused, match="entry 2: key: it is not the officer's"):
            use()
    assert pinned.inspect().problem.message.startswith("entry 2: key: ")


def forge(state, anchor, change) -> None:
    """Change the last row as somebody would who can write the database and knows how hashes are made."""
    with sqlite3.connect(state / "ledger.sqlite") as connection:
        connection.row_factory = sqlite3.Row
        row = dict(connection.execute("SELECT * FROM entries ORDER BY sequence DESC LIMIT 1").fetchone())
        body = json.loads(row["body"])
        change(body)
        row["body"] = json.dumps(body, sort_keys=True)
        row["hash"] = _hash_of({name: row[name] for name in _HASHED})
        connection.execute(
            "UPDATE entries SET body = ?, hash = ? WHERE sequence = ?", (row["body"], row["hash"], row["sequence"])
        )
    connection.close()
    anchor.write_text(json.dumps(json.loads(anchor.read_text()) | {"hash": row["hash"]}))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda body: body.update(new=[80.0, 1e-5]), "signature"),
        (lambda body: body.update(reason="the board said so"), "signature"),
        (lambda body: body.update(signature="00" * 64), "signature"),
        (lambda body: body.update(signature="nonsense"), "signature"),
        (lambda body: body.update(key="00" * 32), "signature"),
        (lambda body: body.pop("signature"), "body"),
        (lambda body: body.pop("new"), "signature"),
    ],
)
def test_a_forged_change_with_a_right_chain_and_anchor_is_noticed_by_its_signature(ledger, state, change, field):
    ledger.change_budget("heart", epsilon=10.0, delta=None, reason="board vote", key=KEY)
    forge(state, state.parent / "anchors" / "lab-1.json", change)
    with pytest.raises(BudgetRefused, match=f"entry 2: {field}: "):
        Ledger(state).entries()


def test_a_signature_of_another_place_is_no_signature(ledger, state, tmp_path):
    """A change that was signed for one site, data set and place in the chain cannot be played again elsewhere."""
    ledger.change_budget("heart", epsilon=10.0, delta=None, reason="board vote", key=KEY)
    signed = ledger.entries()[-1].body
    other = Ledger(tmp_path / "lab-2")
    other.register("heart", **BUDGET)
    other.change_budget("heart", epsilon=10.0, delta=None, reason="board vote", key=KEY)
    forge(tmp_path / "lab-2", tmp_path / "anchors" / "lab-2.json", lambda body: body.update(signed))
    with pytest.raises(BudgetRefused, match="entry 2: signature"):
        Ledger(tmp_path / "lab-2").entries()


def test_nothing_changes_without_a_reason_or_without_a_change(ledger):
    for changes, match in (
        ({"epsilon": 10.0, "reason": "  "}, "needs a reason"),
        ({"epsilon": 8.0, "reason": "same"}, "is epsilon 8, delta 1e-05 already"),
        ({"epsilon": -1.0, "reason": "nonsense"}, "not a positive number"),
        ({"epsilon": float("nan"), "reason": "nonsense"}, "not a positive number"),
    ):
        with pytest.raises(InputError, match=match):
            ledger.change_budget("heart", **({"delta": None, "key": KEY} | changes))
    with pytest.raises(InputError, match="delta"):
        ledger.change_budget("heart", epsilon=9.0, delta=2.0, reason="nonsense", key=KEY)
    with pytest.raises(InputError, match="lungs has no charges yet"):
        ledger.change_budget("lungs", epsilon=9.0, delta=None, reason="early", key=KEY)
    assert len(ledger.entries()) == 1


def test_the_key_is_made_once_and_kept_from_others(tmp_path):
    path = tmp_path / "deep" / "officer.key"
    key, fresh = officer_key(path)
    assert fresh
    assert path.stat().st_mode & 0o777 == 0o600
    again, fresh = officer_key(path)
    assert (again.public, fresh) == (key.public, False)
    path.chmod(0o644)
    with pytest.raises(PolicyRefused, match="open to other users"):
        officer_key(path)


def test_a_file_that_is_no_key_is_refused(tmp_path):
    path = tmp_path / "officer.key"
    path.write_bytes(b"short")
    path.chmod(0o600)
    tmp_path.chmod(0o700)
    with pytest.raises(InputError, match="is not an officer's key"):
        officer_key(path)
    with pytest.raises(InputError, match="Is a directory"):
        officer_key(tmp_path)


def test_the_key_lies_in_the_officers_configuration(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_key_path() == tmp_path / "fedsci" / "officer.key"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(default_key_path()) == "/home/someone/.config/fedsci/officer.key"


def test_what_is_signed_is_the_content_whatever_its_order():
    signature = sign(KEY, {"a": 1, "b": [2.5, "x"]})
    assert is_signed({"b": [2.5, "x"], "a": 1}, public=PINNED, signature=signature)
    assert not is_signed({"b": [2.5, "y"], "a": 1}, public=PINNED, signature=signature)
    assert not is_signed({"b": [2.5, "x"], "a": 1}, public=STRANGER.public.hex(), signature=signature)
