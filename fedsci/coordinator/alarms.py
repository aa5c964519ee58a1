"""What a study does about sums that honest sites do not make: notes them, uses none, and finds out whose they are."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from fedsci.config.plan import Plan
from fedsci.coordinator.blame import NAMED, Blame, Trial
from fedsci.coordinator.norm_check import Norm, NormCheck
from fedsci.coordinator.progress import Progress
from fedsci.errors import RoundAborted
from fedsci.names import SiteId

ALARM, WARNING = "alarm", "warning"
_ASK = "ask these labs what they sent: each signed its uploads (docs/input-validation.md)"


def left_out_for_good(progress: Progress) -> Mapping[SiteId, str]:
    """Return the sites that were found to spoil sums, and why they are asked for nothing any more."""
    named = () if progress.blame is None else progress.blame.named
    return {site: f"{site}: {NAMED}" for site in named}


@dataclass(kw_only=True)
class Alarms:
    """Keeps a study's alarms in its progress, and says who is in the next round.

    Sites are left out of rounds only where every sum carries noise of its own: without, the difference of two sums
    would show an update. Nor of buffers, whose cohorts the clock chooses.

    Attributes:
        plan: the study's.
        progress: where alarms, and what is known of liars, are kept.
        check: judges sums.
    """

    plan: Plan
    progress: Progress
    check: NormCheck

    @property
    def looks_for_liars(self) -> bool:
        """Whether rounds may leave sites out to find whose uploads are wrong."""
        return self.plan.private and self.plan.buffer is None

    @property
    def searching(self) -> bool:
        """Whether rounds are compared to find somebody."""
        return self.progress.blame is not None and self.progress.blame.active

    def tried(self, left_out: Collection[SiteId]) -> bool:
        """Say whether some of these could have taken part: they were left out to compare sums, and not for good."""
        return not left_out_for_good(self.progress).keys() >= set(left_out)

    def repeats(self, number: int) -> bool:
        """Say whether a round sends out a model that another cohort had, or another than usual has.

        Exact metrics of one model over two cohorts would show those of who is left out.
        """
        alarmed = {one["round"] for one in self.progress.alarms if one["level"] == ALARM}
        return self.searching or number - 1 in alarmed

    def left_out(self) -> Mapping[SiteId, str]:
        """Return whom the next round leaves out, and why.

        Raises:
            RoundAborted: too few sites would be left to find out whose uploads are wrong.
        """
        blame = self.progress.blame
        out = {} if blame is None else blame.leave_out()
        if blame is None or out is not None:
            return out or {}
        raise RoundAborted(
            f"no honest sites have such sums, and with min_survivors {self.plan.min_survivors} of "
            f"{len(self.plan.sites)} no round can leave out as many as it takes to find whose uploads they are; "
            f"{blame.in_words()}",
            hint=_ASK,
        )

    def heed(self, number: int, survivors: Sequence[SiteId], norm: Norm, left_out: Collection[SiteId]) -> None:
        """Note what a round's sum says; ``left_out`` are the sites that were not asked, to compare sums."""
        progress = self.progress
        what = norm.alarm or norm.warning
        if what is None:
            progress.levels.append(norm.level)
        else:
            progress.alarms.append(
                {
                    "round": number,
                    "kind": what,
                    "level": ALARM if norm.alarm else WARNING,
                    "norm": norm.to_json()["sum"],
                    "bound": norm.to_json()["bound"],
                    "least": norm.to_json()["least"],
                    "sites": sorted(survivors),
                }
            )
        if self.looks_for_liars and (norm.alarm or progress.blame is not None):
            known = progress.blame or Blame(sites=self.plan.sites, least=self.plan.min_survivors)
            progress.blame = known.after(
                Trial(
                    number=number,
                    cohort=frozenset(survivors),
                    left_out=frozenset(left_out),
                    alarm=norm.alarm is not None,
                )
            )

    def fell_short(self) -> None:
        """Note that a round which left sites out had too few: the next leaves out fewer."""
        if self.progress.blame is not None:
            self.progress.blame = self.progress.blame.after_too_few()

    def require_any(self) -> None:
        """Pass if some round was applied, or none was given up for its sum.

        Raises:
            RoundAborted: there is nothing but the model that the study began with.
        """
        lost = [one["round"] for one in self.progress.alarms if one["level"] == ALARM]
        if lost and not self.progress.rounds_completed:
            among = {site for one in self.progress.alarms if one["level"] == ALARM for site in one["sites"]}
            suspects = ", ".join(sorted(among))
            raise RoundAborted(
                f"no round was applied: no honest sites have the sums of {len(lost)} of them; any of {suspects}",
                hint=_ASK,
            )

    def require_private(self, number: int, norm: Norm, survivors: Sequence[SiteId]) -> None:
        """Pass if the study goes on after an alarm.

        Raises:
            RoundAborted: it has no privacy: without noise, a round that leaves out a site would show its update.
        """
        if norm.alarm is None or self.plan.private:
            return
        raise RoundAborted(
            f"round {number}: the sum cannot come from honest sites: {norm.in_words()}; without a privacy mechanism no "
            f"round may leave out a site to find whose upload it is; any of {', '.join(sorted(survivors))}",
            hint=_ASK,
        )
