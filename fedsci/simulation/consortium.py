"""The consortium of simulated labs: who signs their roster, and how they come to trust it.

Real labs pin the consortium's key when they enrol; here it is made once for a state folder and pinned as each
lab starts.
"""

from collections.abc import Mapping
from pathlib import Path

from fedsci import secagg
from fedsci.config.plan import Plan
from fedsci.coordinator.preparation import SignedRoster
from fedsci.errors import InputError
from fedsci.identity.files import write_private
from fedsci.names import SiteId
from fedsci.secagg.profiles import DEFAULT, PROFILES
from fedsci.site.keystore import random_seed


class SimulatedConsortium:
    """Signs rosters of simulated labs.

    Args:
        state: the folder that holds the labs' state folders.
        profile: the crypto profile that the study asks for; None: as it is there, ``default`` if it is new.

    Raises:
        InputError: the key cannot be kept there, or the consortium there is of another profile.
    """

    def __init__(self, state: Path, profile: str | None = None) -> None:
        path = state / "consortium.key"
        try:
            if not path.exists():
                write_private(path, random_seed(PROFILES[profile or DEFAULT.name]))
            self._key = secagg.SigningKey(secagg.Seed(path.read_bytes()))
        except OSError as error:
            raise InputError(
                f"cannot keep the consortium's key in {path}: {error.strerror}",
                hint="choose another folder with --state",
            ) from None

        if profile not in (None, self._key.profile.name):
            raise InputError(
                f"the labs in {state} are of the crypto profile {self._key.profile.name}, not of {profile}",
                hint="a consortium has one profile for life: choose another folder with --state",
            )

    @property
    def public(self) -> bytes:
        """The key that labs pin."""
        return self._key.public

    @property
    def log_key(self) -> secagg.SigningKey:
        """What signs the audit logs of its studies."""
        return self._key

    def roster(self, plan: Plan, keys: Mapping[SiteId, bytes]) -> SignedRoster:
        """Return the signed roster of the plan's labs.

        Args:
            plan: a plan with secure aggregation.
            keys: each lab's verification key.
        """
        members = tuple(
            secagg.RosterSite(index=number, name=site, verification_key=keys[site])
            for number, site in enumerate(plan.sites, start=1)
        )
        roster = secagg.Roster(
            serial=1,
            sites=members,
            terms=secagg.default_terms(len(members)),
            ring_bits=plan.study.secure_aggregation.ring_bits,
        )
        return SignedRoster(content=secagg.sign_roster(roster, self._key), consortium_key=self.public)
