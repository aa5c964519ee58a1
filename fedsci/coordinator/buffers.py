"""The schedule of buffers: sites begin on a model when they are free, and a round sums those that have finished."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsci.config.plan import Plan
from fedsci.coordinator.aggregation import reason_of
from fedsci.coordinator.clock import Clock
from fedsci.errors import SiteFailed
from fedsci.names import Digest, SiteId, digest
from fedsci.strategies.base import BufferedStrategy
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import Request

#: Why a site is in no sum of a round that waited for others.
NOT_IN_BUFFER = "not in this buffer"


@dataclass(frozen=True, kw_only=True)
class Opening:
    """Who is in a round.

    Attributes:
        fields: what the round's requests say of it; public, the same for every site.
        absent: sites that are not asked, with the reason.
        broken: of the sites that answered, those that are left out all the same, with the reason.
    """

    fields: Mapping[str, Any]
    absent: Mapping[SiteId, str] = field(default_factory=dict)
    broken: Callable[[Collection[SiteId]], Mapping[SiteId, str]] = lambda answered: {}


EVERYBODY = Opening(fields={})


@dataclass(kw_only=True)
class Buffers:
    """Keeps count of which site trains on which model.

    A round is one buffer, and one slot of the masks. Its cohort are sites that have finished when it is opened: at
    least the plan's ``buffer``, where so many are there, and of any model at least ``together`` or none, since sites
    refuse to be told apart by their models. So that slow sites are not left in too small a company, some that have
    finished wait for them; a site whose company is lost for good begins anew.

    Attributes:
        link: to the sites.
        clock: the same link, as it keeps time.
        plan: the study's.
        strategy: the plan's.
        run: 32 hexadecimal digits.
        records: every site's public record counts.
    """

    link: SiteLink
    clock: Clock
    plan: Plan
    strategy: BufferedStrategy
    run: str
    records: Mapping[str, Any]
    _training: dict[SiteId, int] = field(default_factory=dict)
    _digests: dict[int, Digest] = field(default_factory=dict)

    def open(self, number: int, model: NDArray[np.float32], members: Collection[SiteId]) -> Opening:
        """Let free sites begin on the current model, and wait until the buffer is full.

        Args:
            number: of the round, 1, 2, ...
            model: what the strategy sends, after ``number - 1`` rounds.
            members: the sites that can be in the round's sum.
        """
        current = number - 1
        self._digests[current] = digest(model.tobytes())
        sizes = Counter(version for site, version in self._training.items() if site in members)
        for site, version in list(self._training.items()):
            if site in members and sizes[version] < self.strategy.together:
                del self._training[site]
        failed = self._begin(current, model)
        cohort, done = self._fill(number, members)
        if len(cohort) < self.plan.min_survivors:  # those that wait for company begin anew
            for site in set(done) - set(cohort):
                if self._training[site] < current:
                    del self._training[site]
            failed = self._begin(current, model)
            cohort, _ = self._fill(number, members)
        trained = {site: self._training.pop(site) for site in sorted(cohort)}
        absent = {
            site: failed.get(site) or f"{site}: {NOT_IN_BUFFER}" for site in self.plan.sites if site not in trained
        }
        versions = {*trained.values(), current}
        fields = {"trained": trained, "models": {str(version): self._digests[version] for version in sorted(versions)}}
        for version in set(self._digests) - {*self._training.values(), *versions}:
            del self._digests[version]
        return Opening(fields=fields, absent=absent, broken=lambda answered: self._broken(trained, answered))

    def _begin(self, current: int, model: NDArray[np.float32]) -> dict[SiteId, str]:
        """Hand the current model to the sites that have none to train on; return why some did not begin."""
        fields: dict[str, Any] = {"run": self.run, "records": self.records, "version": current}
        begin = Request(action="begin", fields=fields, vector=model)
        free = [site for site in self.plan.sites if site not in self._training]
        replies = self.link.ask(dict.fromkeys(free, begin)) if free else {}
        failed = {site: reason_of(reply) for site, reply in replies.items() if isinstance(reply, SiteFailed)}
        self._training |= {site: current for site in replies if site not in failed}
        return failed

    def _fill(self, number: int, members: Collection[SiteId]) -> tuple[list[SiteId], list[SiteId]]:
        """Wait until enough sites may go into the round, or all have finished; return those, and who has finished."""
        able = [site for site in self.plan.sites if site in self._training and site in members]
        wanted, done = self.plan.buffer or 0, list[SiteId]()
        while len(cohort := self._going(able, done, company=True)) < wanted:
            finished = self.clock.finished(able, count=len(done) + 1, round_number=number)
            if len(finished) == len(done):  # nobody else to wait for: better that some slow site begins anew
                return self._going(able, done, company=False), done
            done += [site for site in finished if site not in done]
        return cohort, done

    def _going(self, able: Sequence[SiteId], done: Sequence[SiteId], *, company: bool) -> list[SiteId]:
        """Return the sites of a buffer that is opened now; ``done`` is in the order in which they finished."""
        going: list[SiteId] = []
        for version in sorted({self._training[site] for site in done}):
            finished = [site for site in done if self._training[site] == version]
            unfinished = sum(self._training[site] == version for site in able) - len(finished)
            stay = max(0, self.strategy.together - unfinished) if company and unfinished else 0
            leaving = finished[: max(0, len(finished) - stay)]
            if len(leaving) >= self.strategy.together:
                going += leaving
        return going

    def _broken(self, trained: Mapping[SiteId, int], answered: Collection[SiteId]) -> dict[SiteId, str]:
        """Return the sites that no other would open a sum with: too few are left that trained on their model."""
        left = Counter(trained[site] for site in answered)
        return {
            site: f"{site}: too few are left that trained on its model, the one after round {trained[site]}"
            for site in answered
            if left[trained[site]] < self.strategy.together
        }
