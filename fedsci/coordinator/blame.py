"""Whose upload makes sums impossible: rounds that leave some sites out, until one site alone explains the alarms.

Masks hide every upload, so only sums over cohorts can be compared. One thing is certain: honest sites alone raise no
alarm (but once in 2^40 sums), so **every cohort whose sum alarmed holds a liar**. What a sum without an alarm says is
no proof: a liar sees who is asked, and may behave.

A set L of sites is *named* when

1. of its every site x there were alarms in cohorts with x and no other of L, and no site but x was in all of them;
2. every other site in these cohorts was in a sum without any of L that raised no alarm.

**Whoever always lies.** If every liar lies in every sum that it is in, only liars are named: by (2) nobody else in the
cohorts of (1) lies, so each of these alarms was of its x. Sites that are away meanwhile change nothing of it.

**One liar frames nobody.** Say that x was named and is honest. Each of the alarms in (1) needs a liar in its cohort,
which is not x, not another of L, and none that was named before (cohorts with those are not looked at). One liar alone
would have been in all these cohorts; but x is the only one who was. So at least two sites lied that are not named.

Two sites that lie in turns, each whenever the other is left out and always beside x, can have x named: no procedure
that sees sums alone tells that from x lying. So a name is a reason to look, not a verdict (docs/input-validation.md).

Sites are left out in groups (Dorfman 1943, The detection of defective members of large populations): first until a
sum raises no alarm, then to rule out, alarm by alarm, every site beside the most plausible explanation. That is the
smallest set with a site in every alarmed cohort and, of these, the one in the fewest sums without alarm. Every such
round is one of the plan's and was charged anyway; each sum carries fresh noise.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from fedsci.names import SiteId

#: Why a site is in no sum of a round that looks for liars.
LEFT_OUT = "left out, to find whose uploads make the sum impossible"
#: Why a site is in no sum any more.
NAMED = "left out: no sum was possible with its uploads"
_MOST_LIARS, _MOST_SETS = 3, 200_000

Cohort = frozenset[SiteId]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A round as it speaks of liars.

    Attributes:
        number: the round.
        cohort: the sites in its sum.
        left_out: those that the coordinator did not ask, on purpose; others may have been missing by themselves.
        alarm: no honest sites have such a sum.
    """

    number: int
    cohort: Cohort
    left_out: Cohort
    alarm: bool


@dataclass(frozen=True, kw_only=True)
class Blame:
    """What the rounds since the first alarm say.

    Attributes:
        sites: of the study, in order.
        least: how many must be in a sum.
        trials: those rounds, as long as somebody is looked for.
        named: the sites that were found, in order.
        spare: by how many fewer sites the next round leaves out than it could, since one had too few.
    """

    sites: tuple[SiteId, ...]
    least: int
    trials: tuple[Trial, ...] = ()
    named: tuple[SiteId, ...] = ()
    spare: int = 0

    @property
    def room(self) -> int:
        """How many sites a round can leave out besides those that are named, if no other is away."""
        return max(0, len(self.sites) - self.least - len(self.named))

    @property
    def capacity(self) -> int:
        """How many the next round can leave out."""
        return max(0, self.room - self.spare)

    @property
    def alarmed(self) -> list[Cohort]:
        """The cohorts whose alarms nobody who is named explains."""
        return [one.cohort for one in self.trials if one.alarm and not one.cohort.intersection(self.named)]

    @property
    def active(self) -> bool:
        """Whether somebody is looked for: there are unexplained alarms, and they did not stop by themselves."""
        return bool(self.alarmed) and self._quiet < self._patience

    @property
    def suspects(self) -> tuple[SiteId, ...]:
        """The sites that were in an unexplained alarm: of each alarm, at least one of its cohort is a liar."""
        there = frozenset[SiteId]().union(*self.alarmed)
        return tuple(site for site in self.sites if site in there)

    @property
    def alone(self) -> tuple[SiteId, ...]:
        """Those of them that were in all: where there is only one liar it is among these."""
        alarmed = self.alarmed
        there = frozenset.intersection(*alarmed) if alarmed else frozenset()
        return tuple(site for site in self.sites if site in there)

    def after(self, trial: Trial) -> "Blame":
        """Return what is known after one more round that all sites but those left out were asked in."""
        if not (trial.alarm or self.active):
            return self
        nobody_away = trial.cohort.union(trial.left_out) == frozenset(self.sites)
        spare = max(0, self.spare - 1) if nobody_away or not self.capacity else self.spare
        more = replace(self, trials=(*self.trials, trial), spare=spare)
        found = more._explanation()
        if found is not None and more._is_proven(found):
            named = {*self.named, *found}
            return replace(more, named=tuple(site for site in self.sites if site in named))
        return more

    def after_too_few(self) -> "Blame":
        """Return what is known after a round that left sites out and had too few: the next leaves out one fewer."""
        return replace(self, spare=min(self.spare + 1, self.room))

    def leave_out(self) -> Mapping[SiteId, str] | None:
        """Return whom the next round leaves out, and why; None where too few sites would be left to find anybody.

        Where others were away it may be nobody but who is named: such a round tells something, too.
        """
        out = {site: f"{site}: {NAMED}" for site in self.named}
        if not self.active:
            return out
        found = self._explanation()
        if found is None:
            return None
        group = tuple(self._group(found)) if len(found) <= self.capacity else ()
        return out | {site: f"{site}: {LEFT_OUT}" for site in group}

    def in_words(self) -> str:
        """Return who is suspected; empty if there is no unexplained alarm."""
        return suspicion(self.suspects, self.alone)

    def to_json(self) -> dict[str, Any]:
        """Return what :func:`blame_from_json` reads."""
        trials = [
            {
                "round": one.number,
                "sites": sorted(one.cohort),
                "left_out": sorted(one.left_out),
                "alarm": one.alarm,
            }
            for one in self.trials
        ]
        return {"named": list(self.named), "rounds": trials, "spare": self.spare}

    @property
    def _quiet(self) -> int:
        """Rounds since the last alarm."""
        return next((at for at, one in enumerate(reversed(self.trials)) if one.alarm), len(self.trials))

    @property
    def _patience(self) -> int:
        """After how many rounds without alarm everybody is asked again: a liar that always lies takes fewer."""
        size = len(self.sites)
        return 2 * math.ceil(size / max(1, self.room)) + math.ceil(math.log2(size)) if size > 1 else 0

    def _clean(self, sites: Collection[SiteId]) -> int:
        """Return how many sums without alarm held one of these sites."""
        return sum(not one.alarm and not one.cohort.isdisjoint(sites) for one in self.trials)

    def _explanations(self) -> list[Cohort]:
        """Return the smallest sets with a site in every unexplained alarm that a round can leave out."""
        alarmed = self.alarmed
        there = [site for site in self.sites if site in frozenset.union(*alarmed)]
        for size in range(1, min(_MOST_LIARS, self.room) + 1):
            if math.comb(len(there), size) > _MOST_SETS:
                break
            sets = map(frozenset, combinations(there, size))
            found = [one for one in sets if not any(one.isdisjoint(cohort) for cohort in alarmed)]
            if found:
                return found
        return []

    def _likely(self) -> list[Cohort]:
        """Return those that were in the fewest sums without alarm, in order."""
        found = self._explanations()
        clean = [self._clean(one) for one in found]
        return [one for one, times in zip(found, clean, strict=True) if times == min(clean)]

    def _explanation(self) -> Cohort | None:
        return next(iter(self._likely()), None) if self.alarmed else None

    def _alone(self, site: SiteId, found: Cohort) -> Cohort:
        """Return who was in every alarmed cohort with this site and no other of ``found``; all, if there was none."""
        others = found - {site}
        cohorts = [cohort for cohort in self.alarmed if site in cohort and cohort.isdisjoint(others)]
        return frozenset.intersection(*cohorts) if cohorts else frozenset(self.sites) - others - {*self.named}

    def _is_proven(self, found: Cohort) -> bool:
        if self._unproven(found):
            return False
        clean = [one.cohort for one in self.trials if not one.alarm and one.cohort.isdisjoint(found)]
        return bool(clean) and frozenset.union(*self.alarmed) - found <= frozenset.union(*clean)

    def _unproven(self, found: Cohort) -> list[SiteId]:
        return [site for site in self.sites if site in found and self._alone(site, found) != {site}]

    def _has_clean(self, found: Cohort) -> bool:
        return any(not one.alarm and one.cohort.isdisjoint(found) for one in self.trials)

    def _group(self, found: Cohort) -> Iterable[SiteId]:
        """Return whom to leave out next, given the most plausible explanation."""
        if not self._has_clean(found):
            return self._filled(found, self._ranked(found))
        unproven = self._unproven(found)
        if not unproven:
            return found
        site = unproven[0]
        rest = [one for one in self.sites if one in self._alone(site, found) and one != site]
        own = self._clean({site})
        cleared = sorted((one for one in rest if self._clean({one}) > own), key=lambda one: -self._clean({one}))
        return self._filled(found - {site}, cleared or rest[: math.ceil(len(rest) / 2)])

    def _ranked(self, found: Cohort) -> list[SiteId]:
        """Return the other sites, those first that are in many other likely explanations: one round may try many."""
        likely = self._likely()
        beside = {one: sum(one in each for each in likely if not each.isdisjoint(found)) for one in self.sites}
        among = {one: sum(one in each for each in likely) for one in self.sites}
        others = [one for one in self.sites if one not in found and among[one]]
        return sorted(others, key=lambda one: (-beside[one], -among[one]))

    def _filled(self, group: Cohort, others: Sequence[SiteId]) -> list[SiteId]:
        return [*(one for one in self.sites if one in group), *others[: max(0, self.capacity - len(group))]]


def suspicion(suspects: Sequence[str], alone: Sequence[str]) -> str:
    """Return in words who is suspected: who had a part in an alarm, and who in all of them."""
    if not suspects or set(suspects) == set(alone):
        return f"it may be any of {', '.join(suspects)}" if suspects else ""
    by_one = f"if one lab did it alone, it is {' or '.join(alone)}" if alone else "no lab can have done it alone"
    return f"{by_one}; if several did, any of {', '.join(suspects)}"


def blame_from_json(sites: tuple[SiteId, ...], least: int, values: Mapping[str, Any]) -> Blame:
    """Return what was kept of it."""
    trials = tuple(
        Trial(
            number=one["round"],
            cohort=frozenset(map(SiteId, one["sites"])),
            left_out=frozenset(map(SiteId, one["left_out"])),
            alarm=one["alarm"],
        )
        for one in values["rounds"]
    )
    named = tuple(map(SiteId, values["named"]))
    return Blame(sites=sites, least=least, trials=trials, named=named, spare=values["spare"])
