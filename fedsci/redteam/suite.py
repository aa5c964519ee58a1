"""All attacks on one study, one family after the other."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fedsci import __version__
from fedsci.config.study_file import StudyOnOneMachine
from fedsci.errors import FedsciError, InputError
from fedsci.redteam.finding import Finding, overall, words_for
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


#: The row that stands for a family which did not complete.
_FIRST_ROWS: Final[Mapping[str, str]] = {"audit": "audit-epsilon"}


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """What one family came to.

    Attributes:
        findings: row by row; one that says why, if it did not complete.
        seconds: wall time.
        error: what ended it; None if it completed.
    """

    findings: tuple[Finding, ...]
    seconds: float
    error: FedsciError | None


@dataclass(frozen=True, kw_only=True)
class RedTeam:
    """What the attacks came to.

    Attributes:
        study: its name.
        plan_digest: of the plan that was attacked.
        seed: of the attacks' own randomness.
        families: by name, in the order of the table; those that were asked for.
    """

    study: str
    plan_digest: str
    seed: int
    families: Mapping[str, Attacked]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Row by row."""
        return tuple(finding for family in self.families.values() for finding in family.findings)

    @property
    def seconds(self) -> float:
        """Wall time of all families."""
        return sum(family.seconds for family in self.families.values())

    @property
    def left_out(self) -> tuple[str, ...]:
        """Families that were not asked for."""
        return tuple(name for name in FAMILIES if name not in self.families)

    def to_json(self) -> dict[str, Any]:
        """Return ``redteam.json``: every row says its family, and every family of what it is."""
        about = {"fedsci": __version__, "seed": self.seed}
        return {
            "fedsci": __version__,
            "study": self.study,
            "plan_digest": self.plan_digest,
            "verdict": overall((one.verdict for one in self.findings), left_out=bool(self.left_out)),
            "families": {
                name: about | {"seconds": round(family.seconds, 3), "completed": family.error is None}
                for name, family in self.families.items()
            },
            "left_out": list(self.left_out),
            "findings": [
                {"family": name, **finding.to_json()}
                for name, family in self.families.items()
                for finding in family.findings
            ],
        }


def attack(study: StudyOnOneMachine, *, seed: int, only: Sequence[str] = (), told: Told = lambda text: None) -> RedTeam:
    """Attack a study with simulated labs by every family, or ``only`` by some.

    Nothing is charged to the labs' own ledgers: all runs have fresh ones. A family that does not complete has one row
    that says why, and costs no other its rows.

    Raises:
        InputError: there is no such family.
        FedsciError: not one family completed; the first one's error.
    """
    unknown = [name for name in only if name not in FAMILIES]
    if unknown:
        raise InputError(f"there is no attack {unknown[0]!r}", hint=f"one of: {', '.join(FAMILIES)}")
    chosen = [name for name in FAMILIES if not only or name in only]
    families = {name: _attacked(name, study, seed=seed, told=told) for name in chosen}
    errors = [family.error for family in families.values() if family.error is not None]
    if len(errors) == len(families):
        raise errors[0]
    return RedTeam(study=study.plan.study.study, plan_digest=study.plan.digest, seed=seed, families=families)


def _attacked(name: str, study: StudyOnOneMachine, *, seed: int, told: Told) -> Attacked:
    began, failed = time.monotonic(), None
    try:
        findings = FAMILIES[name](study, seed=seed, told=told)
    except FedsciError as error:
        failed = error
        findings = (
            Finding(
                key=_FIRST_ROWS.get(name, name),
                claim=f"All claims that {name} is about.",
                attack="It did not complete.",
                result=f"Not measured: {words_for(error)}",
                verdict="not measured",
            ),
        )
    return Attacked(findings=findings, seconds=time.monotonic() - began, error=failed)
