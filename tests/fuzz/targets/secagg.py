"""Messages and states of secure aggregation: each decodes or is refused, and what decodes encodes to the same bytes.

The two steps take a message into a real batch: a site's, whose coordinator lies; the coordinator's, whose site does.
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np

from fedsci import secagg
from fedsci.errors import ProtocolError
from fedsci.secagg.messages import Advert, AdvertSet, Envelopes
from fedsci.secagg.roster import open_roster, sign_roster
from fedsci.secagg.round_messages import Header, SurvivorList, SurvivorVote, UnmaskShares, VoteList
from tests.fuzz.engine import Target
from tests.secagg.conftest import World, make_roster, signing_key

CONSORTIUM = signing_key(b"consortium")
_KINDS: dict[str, Callable[[bytes], Any]] = {
    "roster": secagg.Roster.decode,
    "setup": secagg.Setup.decode,
    "advert": Advert.decode,
    "adverts": AdvertSet.decode,
    "envelopes": partial(Envelopes.decode, delivered=False),
    "delivery": partial(Envelopes.decode, delivered=True),
    "header": Header.decode,
    "survivors": SurvivorList.decode,
    "vote": SurvivorVote.decode,
    "votes": VoteList.decode,
    "shares": UnmaskShares.decode,
    "state": secagg.SiteState.decode,
    "ready": secagg.ReadySetup.decode,
}


@cache
def batch() -> tuple[dict[str, bytes], dict[str, bytes], secagg.ReadySetup, secagg.RoundCall]:
    """One honest message of each kind, site 1's state before each step, and the coordinator's round."""
    world = World.build(4)
    found, states = {"roster": world.setup.roster.encode(), "setup": world.setup.encode()}, dict[str, bytes]()
    collector = secagg.SetupCollector(world.setup)
    for site in world.members:
        found["advert"] = world.advertise(site)
        collector.add_advert(found["advert"])
    states["adverts"] = world.stored[1]
    found["adverts"] = collector.close_adverts()
    for site in world.members:
        found["envelopes"] = world.share(site, found["adverts"])
        collector.add_envelopes(found["envelopes"])
    states["delivery"] = world.stored[1]
    world.ready, deliveries = collector.close_envelopes()
    found["delivery"], found["ready"] = deliveries[1], world.ready.encode()
    for site, delivery in deliveries.items():
        world.accept(site, delivery)
    call = world.call()
    round_ = world.collector(call, 3)
    for site in (1, 2, 3):
        masked = world.mask(site, call, np.arange(3))
        found["header"], found["payload"] = masked.header, masked.payload.tobytes()
        round_.add_input(masked.header, masked.payload)
    states["survivors"] = world.stored[1]
    found["survivors"] = round_.close_inputs()
    for site in (1, 2, 3):
        found["vote"] = world.answer_survivors(site, found["survivors"])
        round_.add_vote(found["vote"])
    states["votes"] = found["state"] = world.stored[1]
    found["votes"] = round_.close_votes()
    for site in (1, 2, 3):
        found["shares"] = world.answer_votes(site, found["votes"])
    return found, states, world.ready, call


def round_trip(kind: str, data: bytes) -> None:
    """Decode; whatever decodes is canonical, and its text shows no secret's bytes."""
    decoded = _KINDS[kind](data)
    assert decoded.encode() == data, "what decodes has another canonical form"
    repr(decoded)


def site_step(data: bytes) -> None:
    """A site takes any bytes where a message of its coordinator should be; its state stays whole."""
    head, _, body = data.partition(b"\n")
    name = head.decode("ascii", "replace")
    _, states, _, _ = batch()
    state = secagg.SiteState.decode(states.get(name, states["adverts"]))
    steps: dict[str, Callable[[], Any]] = {
        "adverts": lambda: secagg.share(state, body, random_bytes=bytes)[0],
        "delivery": lambda: secagg.accept_shares(state, body),
        "survivors": lambda: secagg.answer_survivors(state, body, signing_key=signing_key(1))[0],
        "votes": lambda: secagg.answer_votes(state, body, signing_key=signing_key(1))[0],
    }
    after = steps.get(name, steps["adverts"])()
    assert secagg.SiteState.decode(after.encode()).revision >= state.revision


def coordinator_step(data: bytes) -> None:
    """The coordinator takes any bytes where a site's message should be, and goes on with the others'."""
    head, _, body = data.partition(b"\n")
    found, _, ready, call = batch()
    payload = np.frombuffer(found["payload"], np.uint16)
    match head:
        case b"advert":
            secagg.SetupCollector(ready.setup).add_advert(body)
        case b"envelopes":
            collector = secagg.SetupCollector(ready.setup)
            collector.add_adverts(found["adverts"])
            collector.close_adverts()
            collector.add_envelopes(body)
        case b"header":
            secagg.RoundCollector(ready, call, length=3).add_input(body, payload)
        case _:
            secagg.ReadySetup.decode(body)


def opened_roster(data: bytes) -> None:
    """A roster that comes with a study: only the consortium's very bytes open."""
    opened = open_roster(data, consortium_key=CONSORTIUM.public)
    assert sign_roster(opened, CONSORTIUM) == data


def _sample(kind: str) -> Mapping[str, bytes]:
    return {"valid": batch()[0][kind]}


def _steps(*names: str) -> Mapping[str, bytes]:
    return {name: name.encode() + b"\n" + batch()[0][name] for name in names}


def _rejects(data: bytes, run: Callable[[bytes], None]) -> None:
    """Only one kind of error says what is wrong with a message."""
    try:
        run(data)
    except ProtocolError:
        raise
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error}") from error


TARGETS = [
    *(
        Target(
            name=f"secagg-{kind}",
            run=partial(_rejects, run=partial(round_trip, kind)),
            seeds=partial(_sample, kind),
            tokens=(b"FSA\x01", b"FSA\x02"),
            tries=150,
        )
        for kind in _KINDS
    ),
    Target(
        name="secagg-site-step",
        run=partial(_rejects, run=site_step),
        seeds=lambda: _steps("adverts", "delivery", "survivors", "votes"),
        headed=True,
        fresh=True,
        tries=25,
    ),
    Target(
        name="secagg-coordinator-step",
        run=partial(_rejects, run=coordinator_step),
        seeds=lambda: _steps("advert", "envelopes", "header"),
        headed=True,
        fresh=True,
        tries=25,
    ),
    Target(
        name="secagg-signed-roster",
        run=partial(_rejects, run=opened_roster),
        seeds=lambda: {"valid": sign_roster(make_roster(4), CONSORTIUM)},
        tries=60,
    ),
]
