"""Write the protocol vectors in ``secagg_v1/``: every byte follows from the fixed randomness below.

    python tests/vectors/make_secagg_v1.py

Bytes are lower-case hex, numbers are decimal. Random bytes are drawn as SHAKE-256 of ``"<stream>/<n>"`` where
``n`` counts the draws of a stream from 1. ``bad`` entries name the rule that must refuse them. The files are
the contract: this script only shows how they came about.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedsci import secagg
from fedsci.errors import ProtocolError
from fedsci.secagg import keys, shamir
from fedsci.secagg.masking import bind_call, pair_masks, self_key
from fedsci.secagg.messages import Advert, AdvertSet, Envelopes
from fedsci.secagg.prg import add_masks
from fedsci.secagg.round_messages import Header, SurvivorList, SurvivorVote, UnmaskShares, VoteList
from fedsci.secagg.transcript import check_adverts, self_mask_commitment

HERE = Path(__file__).parent / "secagg_v1"
SITES = (1, 2, 3, 4)


def stream(name: str) -> Callable[[int], bytes]:
    drawn = 0

    def draw(count: int) -> bytes:
        nonlocal drawn
        drawn += 1
        return hashlib.shake_256(f"{name}/{drawn}".encode()).digest(count)

    return draw


def signing_key(name: str) -> secagg.SigningKey:
    return secagg.SigningKey(secagg.Seed(stream(f"signing key {name}")(32)))


def make_setup() -> secagg.Setup:
    roster = secagg.Roster(
        serial=7,
        sites=tuple(
            secagg.RosterSite(index=i, name=f"lab-{i:02d}", verification_key=signing_key(f"lab-{i:02d}").public)
            for i in SITES
        ),
        terms=secagg.default_terms(len(SITES)),
        batch_slots=2,
    )
    cohort = secagg.choose_cohort(roster, site_bound=1000, plan_digest=hashlib.sha256(b"plan").digest())
    return secagg.Setup(roster=roster, cohort=cohort, run=hashlib.sha256(b"run").digest(), batch=3)


def site_key(site: int) -> secagg.SigningKey:
    return signing_key(f"lab-{site:02d}")


def masks() -> dict[str, object]:
    cases = []
    for name, bits, length in (
        ("short", 16, 8),
        ("two segments", 16, 131_080),
        ("wide", 32, 4),
        ("widest", 64, 2),
    ):
        key = stream(f"mask {name}")(32)
        vector = np.zeros(length, f"<u{bits // 8}")
        add_masks(vector, [(secagg.Seed(key), 1)])
        cases.append(
            {
                "name": name,
                "key": key.hex(),
                "ring_bits": bits,
                "length": length,
                "first": [int(v) for v in vector[:8]],
                "last": [int(v) for v in vector[-4:]],
                "sha256": hashlib.sha256(vector.tobytes()).hexdigest(),
            }
        )
    return {"about": "AES-256 keystream of a mask key, read as little-endian ring elements", "good": cases}


def derivations() -> dict[str, object]:
    setup, (a, b) = make_setup(), (stream("seed a")(32), stream("seed b")(32))
    bind, transcript = hashlib.sha256(b"bind").digest(), hashlib.sha256(b"transcript").digest()
    public_b = keys.exchange_public(secagg.Seed(b))
    (shared,) = keys.exchange(secagg.Seed(a), (public_b,))
    ((pair, sign),) = pair_masks(
        secagg.Seed(a),
        site=1,
        peers={2: public_b},
        context=setup.context,
        slot=1,
        transcript=transcript,
        bind=bind,
    )
    own = self_key(secagg.Seed(a), context=setup.context, site=1, slot=1, bind=bind)
    call = secagg.RoundCall(slot=1, cohort=(1, 2, 4), model_digest=bind, config_digest=transcript)
    small = [(v, v.to_bytes(32, "little").hex()) for v in (0, 1, 2**255 - 20, 2**255 - 19)]
    return {
        "about": "labelled hashing, exchange keys, pair and self keys, bind and commitment",
        "good": [
            {
                "name": "keys",
                "context": setup.context.hex(),
                "transcript": transcript.hex(),
                "bind": bind.hex(),
                "slot": 1,
                "low_site": 1,
                "high_site": 2,
                "seed_of_low": a.hex(),
                "seed_of_high": b.hex(),
                "public_of_low": keys.exchange_public(secagg.Seed(a)).hex(),
                "public_of_high": public_b.hex(),
                "shared_secret": shared.reveal().hex(),
                "pair_key": pair.reveal().hex(),
                "sign_of_low": sign,
                "self_key_of_low": own.reveal().hex(),
                "commitment_of_low": self_mask_commitment(setup.context, 1, 1, a).hex(),
            },
            {
                "name": "bind",
                "transcript": transcript.hex(),
                "slot": 1,
                "cohort": [1, 2, 4],
                "model_digest": bind.hex(),
                "config_digest": transcript.hex(),
                "length": 1000,
                "bind": bind_call(call, transcript=transcript, length=1000).hex(),
            },
        ],
        "bad": [{"name": f"u = {value}", "exchange_key": content, "rule": "weak-key"} for value, content in small],
    }


def sharing() -> dict[str, object]:
    secret = shamir.draw_elements(1, stream("secret"))[0]
    points = (1, 2, 5, 9, 65535)
    shares = shamir.split(secret, threshold=3, points=points, random_bytes=stream("coefficients"))
    encoded = {str(p): shamir.encode_element(s).hex() for p, s in zip(points, shares, strict=True)}
    return {
        "about": "Shamir over 2^255 - 19; any 3 shares give the secret; elements are 32 bytes big-endian",
        "good": [{"threshold": 3, "secret": shamir.encode_element(secret).hex(), "shares": encoded}],
        "bad": [
            {
                "name": "not reduced",
                "element": shamir.PRIME.to_bytes(32, "big").hex(),
                "rule": "malformed-message",
            },
            {"name": "short", "element": bytes(31).hex(), "rule": "malformed-message"},
        ],
    }


def a_round() -> tuple[dict[str, object], dict[str, object]]:
    """Four sites, site 3 gone after the setup; every message, and attempts that stored states must refuse."""
    setup, consortium = make_setup(), signing_key("consortium")
    signed_roster = secagg.sign_roster(setup.roster, consortium)
    good: dict[str, object] = {
        "about": "a whole round of four sites; site 3 leaves before its upload",
        "consortium_key": consortium.public.hex(),
        "signed_roster": signed_roster.hex(),
        "setup": setup.encode().hex(),
        "context": setup.context.hex(),
        "roster_digest": setup.roster.digest.hex(),
    }
    bad: list[dict[str, str]] = []

    def refuse(name: str, step: str, state: secagg.SiteState, content: bytes, rule: str) -> None:
        bad.append(
            {
                "name": name,
                "step": step,
                "state": state.encode().hex(),
                "message": content.hex(),
                "rule": rule,
            }
        )

    states, adverts = {}, {}
    for i in SITES:
        states[i], adverts[i] = secagg.advertise(
            setup, site=i, signing_key=site_key(i), random_bytes=stream(f"advertise {i}")
        )
    collector = secagg.SetupCollector(setup)
    for content in adverts.values():
        collector.add_advert(content)
    advert_set = collector.close_adverts()
    decoded = {i: Advert.decode(content) for i, content in adverts.items()}
    transcript = check_adverts(AdvertSet.decode(advert_set), setup)

    def set_of(chosen: dict[int, Advert]) -> bytes:
        return AdvertSet(context=setup.context, adverts=tuple(chosen.values())).encode()

    foreign = keys.exchange_public(secagg.Seed(stream("coordinator's own key")(32)))
    substituted = {**decoded, 3: replace(decoded[3], channel_key=foreign)}
    copied = replace(decoded[3], channel_key=decoded[2].channel_key).signed_by(site_key(3))
    weak = replace(decoded[3], channel_key=bytes(32)).signed_by(site_key(3))
    few = {i: decoded[i] for i in (1, 2)}
    others = {i: decoded[i] for i in (2, 3, 4)}
    elsewhere = AdvertSet(context=bytes(32), adverts=tuple(decoded.values())).encode()
    refuse("substituted channel key", "share", states[1], set_of(substituted), "forged-advert")
    refuse("a key advertised twice", "share", states[1], set_of({**decoded, 3: copied}), "duplicate-key")
    refuse("a key of small order", "share", states[1], set_of({**decoded, 3: weak}), "weak-key")
    refuse("too few adverts", "share", states[1], set_of(few), "cohort-too-small")
    refuse("own advert withheld", "share", states[1], set_of(others), "own-advert-missing")
    refuse("adverts of another setup", "share", states[1], elsewhere, "other-setup")
    refuse("truncated adverts", "share", states[1], advert_set[:-1], "malformed-message")

    envelopes = {}
    for i in SITES:
        states[i], envelopes[i] = secagg.share(states[i], advert_set, random_bytes=stream(f"share {i}"))
        collector.add_envelopes(envelopes[i])
    ready, deliveries = collector.close_envelopes()
    mine = Envelopes.decode(deliveries[1], delivered=True)
    (first, sealed), *rest = mine.sealed
    damaged = replace(mine, sealed=((first, sealed[:-1] + bytes([sealed[-1] ^ 1])), *rest))
    refuse("another advert set after sharing", "share", states[1], set_of(others), "one-transcript")
    refuse("a damaged envelope", "accept_shares", states[1], damaged.encode(), "bad-envelope")
    refuse(
        "another transcript",
        "accept_shares",
        states[1],
        replace(mine, transcript=bytes(32)).encode(),
        "other-transcript",
    )
    refuse("another site's delivery", "accept_shares", states[1], deliveries[2], "other-recipient")
    for i in SITES:
        states[i] = secagg.accept_shares(states[i], deliveries[i])

    call = secagg.RoundCall(
        slot=0,
        cohort=SITES,
        model_digest=hashlib.sha256(b"model").digest(),
        config_digest=hashlib.sha256(b"configuration").digest(),
    )
    inputs = {1: [1, -2, 1000], 2: [10, 20, -1000], 4: [100, 200, 7]}
    fresh = dict(states)
    masked = {}
    collector_of_round = secagg.RoundCollector(ready, call, length=3)
    for i, values in inputs.items():
        vector = setup.cohort.ring.from_signed(np.array(values))
        states[i], masked[i] = secagg.mask(states[i], call, vector, signing_key=site_key(i))
        collector_of_round.add_input(masked[i].header, masked[i].payload.data)
    survivors = collector_of_round.close_inputs()
    listing = SurvivorList.decode(survivors)
    h = {header.site: header for header in listing.headers}

    def listed(*headers: Header) -> bytes:
        return replace(listing, headers=headers).encode()

    crafted = replace(call, model_digest=hashlib.sha256(b"crafted").digest())
    vector = setup.cohort.ring.from_signed(np.array(inputs[4]))
    _, other = secagg.mask(fresh[4], crafted, vector, signing_key=site_key(4))
    forged = replace(h[4], payload_digest=bytes(32))
    stranger = replace(h[4], site=5).signed_by(signing_key("lab-05"))
    later = replace(h[4], slot=1).signed_by(site_key(4))
    survived = "answer_survivors"
    refuse("below min_survivors", survived, states[1], listed(h[1], h[2]), "too-few-survivors")
    refuse("the site itself is missing", survived, states[3], survivors, "slot-not-open")
    refuse("a duplicate survivor", survived, states[1], listed(h[1], h[1], h[2], h[4]), "duplicate-site")
    refuse("an unknown survivor", survived, states[1], listed(h[1], h[2], h[4], stranger), "unknown-site")
    refuse("a forged header", survived, states[1], listed(h[1], h[2], forged), "forged-header")
    refuse("a header of another slot", survived, states[1], listed(h[1], h[2], later), "other-slot")
    refuse("another model", survived, states[1], listed(h[1], h[2], Header.decode(other.header)), "bind-mismatch")

    all_four = dict(h)
    third, masked3 = secagg.mask(
        fresh[3], call, setup.cohort.ring.from_signed(np.array([0, 0, 0])), signing_key=site_key(3)
    )
    all_four[3] = Header.decode(masked3.header)
    refuse("a present site declared dropped", survived, third, survivors, "self-not-survivor")

    votes = {}
    for i in inputs:
        states[i], votes[i] = secagg.answer_survivors(states[i], survivors, signing_key=site_key(i))
        collector_of_round.add_vote(votes[i])
    vote_list = collector_of_round.close_votes()
    v = {i: SurvivorVote.decode(content) for i, content in votes.items()}
    full = listed(*(all_four[i] for i in SITES))
    refuse("a second survivor set", survived, states[1], full, "two-survivor-sets")

    def voted(*given: SurvivorVote) -> bytes:
        return VoteList(context=setup.context, slot=0, votes=given).encode()

    voting = "answer_votes"
    refuse("too few votes", voting, states[1], voted(v[1], v[2]), "too-few-votes")
    refuse("a vote counted twice", voting, states[1], voted(v[1], v[2], v[2]), "duplicate-site")
    refuse(
        "a forged vote",
        voting,
        states[1],
        voted(v[1], v[2], replace(v[4], signature=v[2].signature)),
        "forged-vote",
    )
    dropped_votes = replace(v[4], site=3).signed_by(site_key(3))
    refuse("a vote of the dropped", voting, states[1], voted(v[1], v[2], dropped_votes), "unknown-site")
    elsewhere_vote = replace(v[4], survivors=bytes(32)).signed_by(site_key(4))
    refuse("a vote for another set", voting, states[1], voted(v[1], v[2], elsewhere_vote), "two-survivor-sets")

    shares = {}
    for i in inputs:
        states[i], shares[i] = secagg.answer_votes(states[i], vote_list, signing_key=site_key(i))
        collector_of_round.add_shares(shares[i])
    result = collector_of_round.finish()
    refuse("a spent slot, another set", survived, states[1], full, "two-survivor-sets")
    one = UnmaskShares.decode(shares[1])
    good |= {
        "adverts": {str(i): content.hex() for i, content in adverts.items()},
        "advert_set": advert_set.hex(),
        "transcript": transcript.digest.hex(),
        "envelopes": {str(i): content.hex() for i, content in envelopes.items()},
        "deliveries": {str(i): content.hex() for i, content in deliveries.items()},
        "call": {
            "slot": 0,
            "cohort": list(SITES),
            "model_digest": call.model_digest.hex(),
            "config_digest": call.config_digest.hex(),
        },
        "bind": bind_call(call, transcript=transcript.digest, length=3).hex(),
        "inputs": {str(i): values for i, values in inputs.items()},
        "headers": {str(i): m.header.hex() for i, m in masked.items()},
        "payloads": {str(i): m.payload.tobytes().hex() for i, m in masked.items()},
        "survivor_list": survivors.hex(),
        "votes": {str(i): content.hex() for i, content in votes.items()},
        "vote_list": vote_list.hex(),
        "shares": {str(i): content.hex() for i, content in shares.items()},
        "self_mask_dealers": [dealer for dealer, _ in one.self_mask],
        "mask_key_dealers": [dealer for dealer, _ in one.mask_key],
        "total": [int(value) for value in result.total],
        "survivors": list(result.survivors),
        "dropped": list(result.dropped),
        "stored_states": {str(i): state.encode().hex() for i, state in states.items()},
    }
    return good, {"about": "stored state, step and message; each must be refused by the rule", "bad": bad}


def rosters() -> dict[str, object]:
    consortium = signing_key("consortium")
    signed = secagg.sign_roster(make_setup().roster, consortium)
    lower = bytearray(signed)
    lower[14] -= 1
    return {
        "about": "signed rosters under one consortium key",
        "consortium_key": consortium.public.hex(),
        "good": [{"signed_roster": signed.hex(), "digest": make_setup().roster.digest.hex()}],
        "bad": [
            {"name": "a lower threshold", "signed_roster": bytes(lower).hex(), "rule": "roster-signature"},
            {"name": "cut", "signed_roster": signed[:-1].hex(), "rule": "roster-signature"},
            {"name": "empty", "signed_roster": "", "rule": "roster-signature"},
            {
                "name": "signed by a site",
                "signed_roster": secagg.sign_roster(make_setup().roster, site_key(1)).hex(),
                "rule": "roster-signature",
            },
        ],
    }


def check_refusals(refusals: dict[str, object]) -> None:
    """Fail here, not in the reader, if a bad vector is accepted or breaks another rule."""
    steps = {
        "share": lambda s, m: secagg.share(s, m, random_bytes=stream("unused")),
        "accept_shares": secagg.accept_shares,
        "answer_survivors": lambda s, m: secagg.answer_survivors(s, m, signing_key=site_key(s.site)),
        "answer_votes": lambda s, m: secagg.answer_votes(s, m, signing_key=site_key(s.site)),
    }
    for entry in refusals["bad"]:  # type: ignore[attr-defined]
        state = secagg.SiteState.decode(bytes.fromhex(entry["state"]))
        try:
            steps[entry["step"]](state, bytes.fromhex(entry["message"]))
        except ProtocolError as error:
            if error.rule != entry["rule"]:
                raise SystemExit(f"{entry['name']}: refused by {error.rule}, not {entry['rule']}") from error
        else:
            raise SystemExit(f"{entry['name']}: accepted")


def main() -> None:
    HERE.mkdir(exist_ok=True)
    round_file, refusals = a_round()
    check_refusals(refusals)
    files = {
        "masks": masks(),
        "derivations": derivations(),
        "shamir": sharing(),
        "rosters": rosters(),
        "round": round_file,
        "refusals": refusals,
    }
    for name, content in files.items():
        (HERE / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
