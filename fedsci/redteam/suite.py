"""All attacks on one study, one family after the other."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fedsci import __version__
from fedsci.config.study_file import StudyOnOneMachine
from fedsci.errors import InputError
from fedsci.redteam.finding import Finding
from fedsci.redteam.free_riding import free_riding
from fedsci.redteam.inversion import inversion
from fedsci.redteam.membership import membership
from fedsci.redteam.poisoning import poisoning
from fedsci.redteam.privacy_audit import audit_privacy
from fedsci.redteam.property import property_inference

Told = Callable[[str], None]
Family = Callable[..., tuple[Finding, ...]]


def _audit(study: StudyOnOneMachine, *, seed: int, told: Told) -> tuple[Finding, ...]:
    if not study.plan.private:
        finding = Finding(
            key="audit-epsilon",
            claim="No epsilon is promised.",
            attack="None: there is nothing to audit.",
            result="The study has privacy.mechanism: none.",
            verdict="not measured",
        )
        return (finding,)
    return audit_privacy(study, seed=seed, told=told).findings


#: Every family by its name, in the order of the table.
FAMILIES: Final[Mapping[str, Family]] = {
    "audit": _audit,
    "membership": membership,
    "inversion": inversion,
    "property": property_inference,
    "poisoning": poisoning,
    "free-riding": free_riding,
}


@dataclass(frozen=True, kw_only=True)
class RedTeam:
    """What the attacks came to.

    Attributes:
        study: its name.
        plan_digest: of the plan that was attacked.
        seed: of the attacks' own randomness.
        findings: row by row.
        seconds: of each family, wall time.
        left_out: families that were not asked for.
    """

    study: str
    plan_digest: str
    seed: int
    findings: tuple[Finding, ...]
    seconds: Mapping[str, float]
    left_out: tuple[str, ...]

    @property
    def broken(self) -> tuple[Finding, ...]:
        """The claims that did not stand."""
        return tuple(finding for finding in self.findings if finding.verdict == "broken")

    def to_json(self) -> dict[str, Any]:
        """Return ``redteam.json``."""
        return {
            "fedsci": __version__,
            "study": self.study,
            "plan_digest": self.plan_digest,
            "seed": self.seed,
            "verdict": "broken" if self.broken else "holds",
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "left_out": list(self.left_out),
            "findings": [finding.to_json() for finding in self.findings],
        }


def attack(study: StudyOnOneMachine, *, seed: int, only: Sequence[str] = (), told: Told = lambda text: None) -> RedTeam:
    """Attack a study with simulated labs by every family, or ``only`` by some.

    Nothing is charged to the labs' own ledgers: all runs have fresh ones.

    Raises:
        InputError: there is no such family.
        FedsciError: a run that an attack needs did not complete.
    """
    unknown = [name for name in only if name not in FAMILIES]
    if unknown:
        raise InputError(f"there is no attack {unknown[0]!r}", hint=f"one of: {', '.join(FAMILIES)}")
    chosen = [name for name in FAMILIES if not only or name in only]
    findings: list[Finding] = []
    seconds: dict[str, float] = {}
    for name in chosen:
        began = time.monotonic()
        findings += FAMILIES[name](study, seed=seed, told=told)
        seconds[name] = time.monotonic() - began
    return RedTeam(
        study=study.plan.study.study,
        plan_digest=study.plan.digest,
        seed=seed,
        findings=tuple(findings),
        seconds=seconds,
        left_out=tuple(name for name in FAMILIES if name not in chosen),
    )
