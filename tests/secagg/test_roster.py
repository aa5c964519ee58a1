from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsci.errors import ProtocolError
from fedsci.secagg import Setup, Terms, choose_cohort, default_terms, open_roster, sign_roster


@given(st.integers(3, 4000))
def test_default_terms_protect_every_size(sites):
    terms = default_terms(sites)
    terms.check(sites)
    assert 2 * terms.threshold > sites + terms.corrupt
    assert terms.min_survivors - terms.corrupt >= 2


def test_the_terms_of_seventeen_labs():
    assert default_terms(17) == Terms(threshold=12, corrupt=6, min_survivors=12)


@pytest.mark.parametrize(
    ("terms", "sites", "rule"),
    [
        (Terms(threshold=2, corrupt=1, min_survivors=2), 2, "cohort-too-small"),
        (Terms(threshold=11, corrupt=6, min_survivors=12), 17, "threshold-too-low"),
        (Terms(threshold=12, corrupt=-1, min_survivors=12), 17, "threshold-too-low"),
        (Terms(threshold=12, corrupt=6, min_survivors=11), 17, "min-survivors"),
        (Terms(threshold=12, corrupt=6, min_survivors=18), 17, "min-survivors"),
        (Terms(threshold=3, corrupt=2, min_survivors=3), 3, "min-survivors"),
    ],
)
def test_terms_that_do_not_protect_are_refused(broken_rule, terms, sites, rule):
    with broken_rule(rule):
        terms.check(sites)


def test_a_signed_roster_opens_under_the_consortiums_key_only(roster_of, consortium, key_of, broken_rule):
    roster = roster_of(17)
    signed = sign_roster(roster, consortium)
    assert open_roster(signed, consortium_key=consortium.public) == roster
    assert open_roster(signed, consortium_key=consortium.public).digest == roster.digest
    with broken_rule("roster-signature"):
        open_roster(signed, consortium_key=key_of(1).public)


@given(data=st.data())
def test_a_tampered_roster_is_refused(data, roster_of, consortium):
    signed = sign_roster(roster_of(4), consortium)
    at = data.draw(st.integers(0, len(signed) - 1))
    flip = data.draw(st.integers(1, 255))
    tampered = signed[:at] + bytes([signed[at] ^ flip]) + signed[at + 1 :]
    with pytest.raises(ProtocolError) as caught:
        open_roster(tampered, consortium_key=consortium.public)
    assert caught.value.rule == "roster-signature"


def test_a_roster_with_a_lower_threshold_has_another_digest(roster_of):
    roster = roster_of(17)
    assert replace(roster, batch_slots=3).digest != roster.digest
    assert replace(roster, serial=2).digest != roster.digest


def test_rosters_that_contradict_themselves_are_refused(roster_of, broken_rule):
    roster = roster_of(4)
    with broken_rule("malformed-message"):
        replace(roster, sites=(roster.sites[1], *roster.sites[1:]))
    with broken_rule("duplicate-site"):
        replace(roster, sites=(replace(roster.sites[0], name=roster.sites[1].name), *roster.sites[1:]))
    with broken_rule("duplicate-site"):
        key = roster.sites[1].verification_key
        replace(roster, sites=(replace(roster.sites[0], verification_key=key), *roster.sites[1:]))
    for slots in (0, 257):
        with broken_rule("batch-slots"):
            replace(roster, batch_slots=slots)
    with broken_rule("ring-bits"):
        replace(roster, ring_bits=8)
    with broken_rule("cohort-too-small"):
        replace(roster, smallest_cohort=2)
    with broken_rule("unknown-site"):
        roster.site(5)


def test_a_cohort_keeps_within_the_roster(roster_of, broken_rule):
    roster = roster_of(17)
    assert choose_cohort(roster, site_bound=10).terms == roster.terms
    five = choose_cohort(roster, members=(9, 1, 4, 5, 6), site_bound=10)
    assert five.members == (1, 4, 5, 6, 9)
    assert five.terms == default_terms(5)
    with broken_rule("unknown-site"):
        choose_cohort(roster, members=(1, 2, 3, 18), site_bound=10)
    with broken_rule("cohort-too-small"):
        choose_cohort(roster, members=(1, 2), site_bound=10, terms=default_terms(3))
    with broken_rule("cohort-too-small"):
        choose_cohort(replace(roster, smallest_cohort=5), members=(1, 2, 3, 4), site_bound=10, terms=default_terms(4))
    with broken_rule("ring-bits"):
        choose_cohort(replace(roster, ring_bits=32), ring_bits=16, site_bound=10)


def test_a_cohort_whose_sum_could_wrap_is_refused(roster_of, broken_rule):
    roster = roster_of(17)
    choose_cohort(roster, site_bound=32767 // 17)
    with broken_rule("ring-headroom"):
        choose_cohort(roster, site_bound=32767 // 17 + 1)
    with broken_rule("ring-headroom"):
        choose_cohort(roster, site_bound=100, total_bound=99)
    choose_cohort(roster, site_bound=32767 // 17 + 1, ring_bits=32)


def test_a_setup_survives_storage_and_binds_everything(roster_of):
    roster = roster_of(5)
    setup = Setup(roster=roster, cohort=choose_cohort(roster, site_bound=10), run=bytes(32), batch=0)
    assert Setup.decode(setup.encode()) == setup
    others = [
        replace(setup, batch=1),
        replace(setup, run=b"\1" * 32),
        replace(setup, cohort=choose_cohort(roster, site_bound=11)),
        replace(setup, roster=replace(roster, serial=2)),
    ]
    assert len({setup.context, *(other.context for other in others)}) == 5
