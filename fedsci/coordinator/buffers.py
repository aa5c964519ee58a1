"""The schedule of buffers: sites begin on a model when they are free, and a round sums those that have finished."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsci.config.plan import Plan
from fedsci.coordinator.clock import Clock
from fedsci.errors import SiteFailed
from fedsci.names import Digest, SiteId, digest
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import Request


@dataclass(frozen=True, kw_only=True)
class Opening:
    """Who is in a round.

    Attributes:
        fields: what the round's requests say of it; public, the same for every site.
        absent: everybody else, with the reason.
    """

    fields: Mapping[str, Any]
    absent: Mapping[SiteId, str]


@dataclass(kw_only=True)
class Buffers:
    """Keeps count of which site trains on which model.

    A round is one buffer, and one slot of the masks: its cohort is the sites that have finished when it is opened, at
    least the plan's ``buffer`` of them where so many are there.

    Attributes:
        link: to the sites.
        clock: the same link, as it keeps time.
        plan: the study's.
        run: 32 hexadecimal digits.
        records: every site's public record counts.
    """

    link: SiteLink
    clock: Clock
    plan: Plan
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
        fields: dict[str, Any] = {"run": self.run, "records": self.records, "version": current}
        begin = Request(action="begin", fields=fields, vector=model)
        free = [site for site in self.plan.sites if site not in self._training]
        replies = self.link.ask(dict.fromkeys(free, begin)) if free else {}
        failed = {site: str(reply) for site, reply in replies.items() if isinstance(reply, SiteFailed)}
        self._training |= {site: current for site in replies if site not in failed}
        able = [site for site in self._training if site in members]
        cohort = self.clock.finished(able, count=self.plan.buffer or 0, round_number=number)
        trained = {site: self._training.pop(site) for site in cohort}
        absent = {
            site: failed.get(site) or f"{site}: not in this buffer, it has the model after round {self._training[site]}"
            for site in self.plan.sites
            if site not in trained
        }
        versions = {*trained.values(), current}
        fields = {"trained": trained, "models": {str(version): self._digests[version] for version in versions}}
        for version in set(self._digests) - {*self._training.values(), *versions}:
            del self._digests[version]
        return Opening(fields=fields, absent=absent)
