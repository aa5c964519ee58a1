"""A consortium in memory: rosters, sites that keep only stored bytes, and an honest coordinator."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest

from fedsci import secagg
from fedsci.secagg import RoundCall, Seed, Setup, SigningKey, SiteState, Terms
from fedsci.secagg.profile import Profile
from fedsci.secagg.profiles import DEFAULT, FIPS, PROFILES


def stream(name: str) -> Callable[[int], bytes]:
    """Seeded random bytes: the same name gives the same stream."""
    state = {"at": 0}

    def draw(count: int) -> bytes:
        state["at"] += 1
        return hashlib.shake_256(f"{name}/{state['at']}".encode()).digest(count)

    return draw


def signing_key(index: int | bytes, profile: Profile = DEFAULT) -> SigningKey:
    name = index if isinstance(index, bytes) else b"site %d" % index
    return SigningKey(Seed((hashlib.sha384 if profile is FIPS else hashlib.sha256)(name).digest()))


def make_roster(
    sites: int,
    *,
    slots: int = 2,
    terms: Terms | None = None,
    indices: Iterable[int] | None = None,
    ring_bits: int = 16,
    profile: Profile = DEFAULT,
) -> secagg.Roster:
    chosen = tuple(indices) if indices is not None else tuple(range(1, sites + 1))
    return secagg.Roster(
        serial=1,
        sites=tuple(
            secagg.RosterSite(index=i, name=f"lab-{i:02d}", verification_key=signing_key(i, profile).public)
            for i in chosen
        ),
        terms=terms or secagg.default_terms(len(chosen)),
        batch_slots=slots,
        ring_bits=ring_bits,
    )


@dataclass
class World:
    """Sites as stored bytes: every step decodes the state, so each could run in a fresh process."""

    setup: Setup
    name: str = "world"
    stored: dict[int, bytes] = field(default_factory=dict)
    ready: secagg.ReadySetup | None = None

    @classmethod
    def build(
        cls,
        sites: int = 5,
        *,
        site_bound: int = 1000,
        slots: int = 2,
        ring_bits: int = 16,
        name: str = "world",
        terms: Terms | None = None,
        indices: Iterable[int] | None = None,
        total_bound: int | None = None,
        profile: Profile = DEFAULT,
    ) -> "World":
        roster = make_roster(sites, slots=slots, terms=terms, indices=indices, ring_bits=ring_bits, profile=profile)
        cohort = secagg.choose_cohort(roster, site_bound=site_bound, total_bound=total_bound)
        return cls(setup=Setup(roster=roster, cohort=cohort, run=bytes(32), batch=0), name=name)

    @property
    def members(self) -> tuple[int, ...]:
        return self.setup.cohort.members

    def key(self, site: int) -> SigningKey:
        return signing_key(site, self.setup.profile)

    def state(self, site: int) -> SiteState:
        return SiteState.decode(self.stored[site])

    def keep(self, site: int, state: SiteState) -> None:
        self.stored[site] = state.encode()

    def advertise(self, site: int) -> bytes:
        state, message = secagg.advertise(
            self.setup,
            site=site,
            signing_key=self.key(site),
            random_bytes=stream(f"{self.name}/advert/{site}"),
        )
        self.keep(site, state)
        return message

    def share(self, site: int, adverts: bytes) -> bytes:
        state, message = secagg.share(self.state(site), adverts, random_bytes=stream(f"{self.name}/share/{site}"))
        self.keep(site, state)
        return message

    def accept(self, site: int, delivery: bytes) -> None:
        self.keep(site, secagg.accept_shares(self.state(site), delivery))

    def set_up(self, *, no_advert: Iterable[int] = (), no_share: Iterable[int] = ()) -> "World":
        collector = secagg.SetupCollector(self.setup)
        advertised = [site for site in self.members if site not in set(no_advert)]
        for site in advertised:
            collector.add_advert(self.advertise(site))
        adverts = collector.close_adverts()
        for site in advertised:
            if site not in set(no_share):
                collector.add_envelopes(self.share(site, adverts))
        self.ready, deliveries = collector.close_envelopes()
        for site, delivery in deliveries.items():
            self.accept(site, delivery)
        return self

    def call(self, slot: int = 0, cohort: tuple[int, ...] | None = None, model: bytes = b"model") -> RoundCall:
        assert self.ready is not None
        return RoundCall(
            slot=slot,
            cohort=self.ready.ready if cohort is None else cohort,
            model_digest=hashlib.sha256(model).digest(),
            config_digest=hashlib.sha256(b"config").digest(),
        )

    def mask(self, site: int, call: RoundCall, values: np.ndarray) -> secagg.MaskedInput:
        vector = self.setup.cohort.ring.from_signed(values)
        state, masked = secagg.mask(self.state(site), call, vector, signing_key=self.key(site))
        self.keep(site, state)
        return masked

    def answer_survivors(self, site: int, listed: bytes) -> bytes:
        state, message = secagg.answer_survivors(self.state(site), listed, signing_key=self.key(site))
        self.keep(site, state)
        return message

    def answer_votes(self, site: int, votes: bytes) -> bytes:
        state, message = secagg.answer_votes(self.state(site), votes, signing_key=self.key(site))
        self.keep(site, state)
        return message

    def collector(self, call: RoundCall, length: int) -> secagg.RoundCollector:
        assert self.ready is not None
        return secagg.RoundCollector(self.ready, call, length=length)

    def inputs(self, length: int, *, seed: int = 0) -> dict[int, np.ndarray]:
        rng = np.random.default_rng(seed)
        bound = self.setup.cohort.site_bound
        return {site: rng.integers(-bound, bound + 1, length) for site in self.members}

    def run(
        self,
        call: RoundCall,
        inputs: dict[int, np.ndarray],
        *,
        no_upload: Iterable[int] = (),
        no_vote: Iterable[int] = (),
        no_shares: Iterable[int] = (),
    ) -> secagg.RoundSum:
        """One round with sites gone for good from the step they are named in."""
        gone = set(no_upload)
        collector = self.collector(call, len(next(iter(inputs.values()))))
        for site in call.cohort:
            if site not in gone:
                masked = self.mask(site, call, inputs[site])
                collector.add_input(masked.header, masked.payload.data)
        listed = collector.close_inputs()
        survivors = collector.uploaded
        if collector.needs_votes:
            gone |= set(no_vote)
            for site in survivors:
                if site not in gone:
                    collector.add_vote(self.answer_survivors(site, listed))
            votes = collector.close_votes()
            gone |= set(no_shares)
            for site in survivors:
                if site not in gone:
                    collector.add_shares(self.answer_votes(site, votes))
        else:
            gone |= set(no_vote) | set(no_shares)
            for site in survivors:
                if site not in gone:
                    collector.add_shares(self.answer_survivors(site, listed))
        return collector.finish()


@pytest.fixture(scope="session")
def profile(request: pytest.FixtureRequest) -> Profile:
    """The crypto profile of the consortium; a module whose tests run in both names them in its ``pytestmark``."""
    return PROFILES[getattr(request, "param", "default")]


@pytest.fixture(scope="session")
def worlds(profile: Profile) -> type[World]:
    class Worlds(World):
        @classmethod
        def build(cls, *args, **options) -> "World":
            return super().build(*args, profile=profile, **options)

    return Worlds


@pytest.fixture(scope="session")
def roster_of(profile: Profile) -> Callable[..., secagg.Roster]:
    return partial(make_roster, profile=profile)


@pytest.fixture(scope="session")
def key_of(profile: Profile) -> Callable[[int], SigningKey]:
    return partial(signing_key, profile=profile)


@pytest.fixture(scope="session")
def consortium(profile: Profile) -> SigningKey:
    return signing_key(b"consortium", profile)


@pytest.fixture(scope="session")
def stream_of() -> Callable[[str], Callable[[int], bytes]]:
    return stream


@pytest.fixture(scope="session")
def broken_rule_session() -> Callable[..., None]:
    """``broken_rule_session(rule, step, *arguments)``: the same check as a call, for use under hypothesis."""
    from fedsci.errors import ProtocolError

    def check(rule: str, step: Callable[..., object], *arguments: object) -> None:
        with pytest.raises(ProtocolError) as caught:
            step(*arguments)
        assert caught.value.rule == rule

    return check


@pytest.fixture
def broken_rule() -> Callable[..., object]:
    """``with broken_rule("name"):`` passes if the block is refused under exactly that rule."""
    from contextlib import contextmanager

    from fedsci.errors import ProtocolError

    @contextmanager
    def check(rule: str):  # type: ignore[no-untyped-def]
        with pytest.raises(ProtocolError) as caught:
            yield
        assert caught.value.rule == rule

    return check
