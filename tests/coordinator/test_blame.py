"""Who is named after alarms: a site that lies is, and nobody else, however a single liar chooses when to lie."""

import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsci.coordinator.blame import LEFT_OUT, NAMED, Blame, Trial, blame_from_json, suspicion
from fedsci.names import SiteId


def study(sites, least=None):
    names = tuple(SiteId(f"lab-{number:02d}") for number in range(1, sites + 1))
    return Blame(sites=names, least=2 * sites // 3 + 1 if least is None else least)


def play(blame, lies, rounds, *, drops=lambda number: (), liars=None):
    """Run rounds in which ``lies(number, cohort)`` says whether somebody spoils the sum; None: it had to be ended."""
    history = []
    for number in range(1, rounds + 1):
        out = blame.leave_out()
        if out is None:
            return blame, history, number
        cohort = frozenset(blame.sites) - {*out} - {*drops(number)}
        assert len(frozenset(blame.sites) - {*out}) >= blame.least
        if len(cohort) < blame.least:
            assert {*out} - {*blame.named}  # else a study ends
            blame = blame.after_too_few()
            continue
        trial = Trial(number=number, cohort=cohort, left_out=frozenset(out), alarm=lies(number, cohort))
        history.append(trial)
        blame = blame.after(trial)
        assert liars is None or set(blame.named) <= liars
    return blame, history, None


@pytest.mark.parametrize("sites", [4, 5, 7, 10, 17, 50])
@pytest.mark.parametrize("which", [0, 1, -1, "middle"])
def test_a_site_that_always_lies_is_named_and_nobody_else(sites, which):
    blame = study(sites)
    liar = blame.sites[sites // 2 if which == "middle" else which]
    blame, history, ended = play(blame, lambda number, cohort: liar in cohort, 30)
    assert ended is None
    assert blame.named == (liar,)
    lost = sum(one.alarm for one in history)
    named_after = next(one.number for one in history if blame_after(study(sites), history[: one.number]).named)
    assert lost <= 2 + -(-(sites - 1) // (sites - study(sites).least)) + 3
    assert all(liar not in one.cohort and not one.alarm for one in history[named_after:])


def blame_after(blame, history):
    for one in history:
        blame = blame.after(one)
    return blame


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(st.integers(4, 12), st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.3, 0.7, 0.95]))
def test_one_liar_frames_nobody_however_it_chooses_when_to_lie(sites, seed, rate):
    """It knows who is asked, and decides by a coin that was thrown for each cohort."""
    blame = study(sites)
    liar = blame.sites[seed % sites]

    def lies(number, cohort):
        return liar in cohort and random.Random(f"{seed}|{number}|{sorted(cohort)}").random() < rate  # noqa: S311

    blame, _, _ = play(blame, lies, 60)
    assert set(blame.named) <= {liar}


@pytest.mark.parametrize("sites", [4, 7, 12])
def test_a_liar_that_lies_only_beside_its_victim_does_not_get_it_named(sites):
    """Every alarm holds the victim, and no sum without it alarms: what suspicion by clean rounds would fall for."""
    blame = study(sites)
    liar, victim = blame.sites[1], blame.sites[2]
    blame, history, _ = play(blame, lambda number, cohort: {liar, victim} <= cohort, 60)
    assert all(victim in one.cohort for one in history if one.alarm)
    assert blame.named == ()
    assert {liar, victim} <= set(blame.suspects)


@pytest.mark.parametrize(("sites", "least", "liars"), [(9, 6, 2), (10, 6, 2)])
def test_liars_that_are_away_whenever_their_victim_is_do_not_get_it_named(sites, least, liars):
    """All of them lie in every sum that they are in, and drop out of rounds that would clear the victim."""
    seen = 0
    for seed in range(15):
        rng = random.Random(seed)  # noqa: S311
        blame = study(sites, least)
        bad = set(rng.sample(blame.sites, liars))
        victim = rng.choice(sorted(set(blame.sites) - bad))
        for number in range(1, 41):
            out = blame.leave_out()
            if out is None:
                break
            asked = frozenset(blame.sites) - {*out}
            there = sorted(bad & asked)
            stay = there if victim not in asked else rng.sample(there, rng.randint(0, max(0, len(there) - 1)))
            cohort = asked - {*stay[: len(asked) - least]}
            seen += victim not in asked and cohort.isdisjoint(bad)
            alarm = not cohort.isdisjoint(bad)
            blame = blame.after(Trial(number=number, cohort=cohort, left_out=frozenset(out), alarm=alarm))
            assert set(blame.named) <= bad
    assert seen  # there were such rounds


@pytest.mark.parametrize("sites", [4, 5, 6, 7])
def test_one_alarm_and_then_a_site_that_stays_away_end_no_study(sites):
    """A round that leaves out another and has too few is followed by one that leaves out fewer."""
    blame = study(sites)
    away = blame.sites[-1]
    blame, history, ended = play(
        blame, lambda number, cohort: number == 1, 40, drops=lambda number: {away} if number > 1 else ()
    )
    assert (ended, blame.named) == (None, ())
    assert len(history) > 20


def test_where_two_lie_it_is_not_said_that_it_is_one_of_those_in_all_alarms():
    for pair in combinations(range(7), 2):
        blame = study(7)
        liars = {blame.sites[at] for at in pair}
        for number in range(1, 20):
            if (out := blame.leave_out()) is None or blame.named:
                break
            cohort = frozenset(blame.sites) - {*out}
            alarm = not cohort.isdisjoint(liars)
            blame = blame.after(Trial(number=number, cohort=cohort, left_out=frozenset(out), alarm=alarm))
            assert not blame.named or set(blame.named) <= liars
            assert blame.named or liars & set(blame.suspects)
            assert set(blame.alone) <= set(blame.suspects)
    assert suspicion(["a", "b"], ["a"]) == "if one lab did it alone, it is a; if several did, any of a, b"
    assert suspicion(["a", "b"], []) == "no lab can have done it alone; if several did, any of a, b"
    assert suspicion(["a", "b"], ["b", "a"]) == "it may be any of a, b"
    assert study(4).in_words() == ""


def test_two_that_lie_in_turns_can_frame_a_third_as_the_documents_say():
    blame = study(7)
    one, two, victim = blame.sites[0], blame.sites[1], blame.sites[5]

    def lies(number, cohort):
        return victim in cohort and not cohort.isdisjoint({one, two})

    blame, _, _ = play(blame, lies, 60)
    assert blame.named == (victim,)


def always(liars):
    return lambda number, cohort: not cohort.isdisjoint(liars)


@pytest.mark.parametrize("size", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_whoever_always_lies_is_named_and_nobody_else_however_many_there_are(size):
    """Every choice of so many of nine; that no honest site is named holds in every round."""
    for chosen in combinations(study(9, 6).sites, size):
        liars = set(chosen)
        blame, _, ended = play(study(9, 6), always(liars), 30, liars=liars)
        if ended is None and size < 3:
            assert set(blame.named) == liars
        else:
            assert liars <= {*blame.named, *blame.suspects}
        if size < 3:
            assert ended is None


@pytest.mark.parametrize("pair", [(0, 1), (1, 2), (3, 11), (15, 16)])
def test_two_of_seventeen_are_named(pair):
    blame = study(17)
    liars = {blame.sites[at] for at in pair}
    blame, history, ended = play(blame, lambda number, cohort: not cohort.isdisjoint(liars), 60)
    assert ended is None
    assert set(blame.named) == liars
    assert not any(one.alarm for one in history[-10:])


def test_more_liars_than_may_be_left_out_end_the_study():
    blame = study(4)
    liars = set(blame.sites[:2])
    blame, _, ended = play(blame, lambda number, cohort: not cohort.isdisjoint(liars), 30)
    assert ended is not None
    assert blame.named == ()
    assert liars <= set(blame.suspects)


def test_where_everybody_is_needed_nobody_can_be_left_out():
    blame = study(3, least=3)
    assert blame.leave_out() == {}
    blame = blame.after(Trial(number=1, cohort=frozenset(blame.sites), left_out=frozenset(), alarm=True))
    assert blame.leave_out() is None
    assert blame.suspects == blame.sites


def test_an_alarm_that_does_not_come_back_costs_some_rounds_in_company_and_names_nobody():
    blame, history, ended = play(study(7), lambda number, cohort: number == 3, 40)
    assert (ended, blame.named) == (None, ())
    smaller = [one.number for one in history if len(one.cohort) < 7]
    assert smaller == list(range(4, 4 + len(smaller)))
    assert len(smaller) < 15
    assert not blame.active


def test_a_second_liar_is_found_after_the_first():
    blame = study(10, least=7)
    first, second = blame.sites[4], blame.sites[8]
    blame, _, _ = play(blame, lambda number, cohort: first in cohort or (second in cohort and number > 20), 80)
    assert set(blame.named) == {first, second}


def test_a_site_that_drops_out_meanwhile_is_not_blamed():
    blame = study(10)
    liar, ill = blame.sites[0], blame.sites[9]
    blame, _, _ = play(
        blame, lambda number, cohort: liar in cohort, 40, drops=lambda number: {ill} if number % 2 else ()
    )
    assert blame.named == (liar,)


def test_nobody_is_left_out_before_the_first_alarm():
    blame, history, _ = play(study(5), lambda number, cohort: False, 10)
    assert blame == study(5)
    assert all(len(one.cohort) == 5 for one in history)


def test_it_says_why_it_leaves_somebody_out():
    blame = study(4).after(Trial(number=1, cohort=frozenset(study(4).sites), left_out=frozenset(), alarm=True))
    assert blame.leave_out() == {"lab-01": f"lab-01: {LEFT_OUT}"}
    blame, _, _ = play(study(4), lambda number, cohort: "lab-02" in cohort, 20)
    assert blame.leave_out() == {"lab-02": f"lab-02: {NAMED}"}


def test_what_is_kept_goes_on_the_same():
    liar = study(7).sites[3]
    whole, history, _ = play(study(7), lambda number, cohort: liar in cohort, 20)
    blame = study(7)
    for one in history:
        blame = blame_from_json(blame.sites, blame.least, blame.to_json()).after(one)
    assert blame == whole
