"""The site's side of secure aggregation: it joins setups, masks what leaves, and releases shares, or refuses."""

import hashlib
import os
from typing import Any

from numpy.typing import NDArray

from fedsci import secagg
from fedsci.config.masking import setup_for
from fedsci.config.plan import Plan
from fedsci.errors import ProtocolError
from fedsci.secagg.round_messages import SurvivorList
from fedsci.secagg.site_steps import check_call
from fedsci.site.keystore import Keystore
from fedsci.transport.binding import config_digest, pack, unpack
from fedsci.transport.messages import Request

Fields = dict[str, str]


class SiteMasking:
    """Takes part in the batches of one run.

    Every step stores its state before its message is returned, so that a crash can lose a message, never a
    promise.

    Args:
        keystore: the site's keys.
        plan: the plan that passed the gate.
        site: the site's name.
        run: 32 hexadecimal digits.
        roster: the signed roster; checked against the pinned key.
    """

    def __init__(self, keystore: Keystore, plan: Plan, site: str, run: str, roster: bytes) -> None:
        self._keystore, self._plan, self._run = keystore, plan, run
        self._roster = secagg.open_roster(roster, consortium_key=keystore.consortium_key())
        self._key = keystore.signing_key()
        named = [member.index for member in self._roster.sites if member.name == site]
        if not named:
            raise ProtocolError(f"{site} is not in the roster", rule="unknown-site")
        self._index = named[0]
        self._names = {member.name: member.index for member in self._roster.sites}

    @property
    def roster(self) -> secagg.Roster:
        """The consortium's roster that the run goes by."""
        return self._roster

    def require_newest_roster(self) -> None:
        """Pass if no newer roster was seen; for a run that begins. One that was let in goes on with its own.

        Raises:
            ProtocolError: ``old-roster``.
        """
        self._keystore.check_serial(self._roster.serial)

    def join_setup(self, request: Request) -> Fields:
        """Do what the setup fields of any request ask for and return what answers them.

        ``setup_batch`` asks for an advert, ``setup_adverts`` for sealed shares, ``setup_delivery`` brings peers'.
        Each may be asked for again, by a coordinator that lost the answer: it gets the same bytes.
        """
        answer: Fields = {}
        fields = request.fields
        if "setup_batch" in fields:
            batch = request.integer("setup_batch")
            if not 0 <= batch <= (self._plan.training.rounds + 1) // self._roster.batch_slots:
                raise ProtocolError(f"the study has no batch {batch}", rule="unknown-slot")
            answer["advert"] = pack(self._advertise(batch))
        if "setup_adverts" in fields:
            state = self._load(request.integer("setup_of"))
            state, envelopes = secagg.share(state, unpack(fields["setup_adverts"]), random_bytes=os.urandom)
            self._keystore.store(self._run, state)
            answer["envelopes"] = pack(envelopes)
        if "setup_delivery" in fields and self._keystore.holds(self._run, request.integer("setup_of")):
            state = self._load(request.integer("setup_of"))
            if state.phase is not secagg.Phase.READY:  # delivered again, since our last answer never arrived
                self._keystore.store(self._run, secagg.accept_shares(state, unpack(fields["setup_delivery"])))
        return answer

    def _advertise(self, batch: int) -> bytes:
        if self._keystore.holds(self._run, batch):
            return secagg.advertise_again(self._load(batch), signing_key=self._key)
        self._keystore.begin_batch(self._run, batch)
        setup = setup_for(self._plan, self._roster, run=self._run, batch=batch)
        state, advert = secagg.advertise(setup, site=self._index, signing_key=self._key, random_bytes=os.urandom)
        self._keystore.store(self._run, state)
        return advert

    def require_batch(self, request: Request) -> None:
        """Pass if this machine holds the secrets of the request's slot: asked before anything is computed or charged.

        Raises:
            ProtocolError: ``batch-burnt``.
        """
        self._keystore.load(self._run, request.integer("slot") // self._roster.batch_slots)

    def require_cohort(self, request: Request) -> None:
        """Pass if this site can mask an upload in the request's slot for its cohort: asked before anything is charged.

        Raises:
            ProtocolError: names the rule.
        """
        batch, slot = divmod(request.integer("slot"), self._roster.batch_slots)
        nothing = bytes(32)
        call = secagg.RoundCall(slot=slot, cohort=self._cohort(request), model_digest=nothing, config_digest=nothing)
        check_call(self._load(batch), call)

    def mask(self, request: Request, vector: secagg.RingVector) -> tuple[Fields, NDArray[Any]]:
        """Return the signed header and the masked vector; ``vector`` is overwritten.

        The masks are bound to what this site received and runs: the model's bytes, the plan, and every field
        that steers the round. Sites that were told different things do not cancel each other's masks.
        """
        batch, slot = divmod(request.integer("slot"), self._roster.batch_slots)
        state = self._load(batch)
        model = b"" if request.vector is None else request.vector.tobytes()
        call = secagg.RoundCall(
            slot=slot,
            cohort=self._cohort(request),
            model_digest=hashlib.sha256(model).digest(),
            config_digest=config_digest(self._plan.digest, request.action, request.fields),
        )
        state, masked = secagg.mask(state, call, vector, signing_key=self._key, in_place=True)
        self._keystore.store(self._run, state)
        return {"header": pack(masked.header)}, masked.payload

    def survivors(self, request: Request) -> tuple[str, ...]:
        """Return who survived, as the request to unmask says; nothing of it is checked."""
        names = {index: name for name, index in self._names.items()}
        listed = SurvivorList.decode(unpack(request.fields.get("survivors"))).survivors
        return tuple(names[index] for index in listed if index in names)

    def unmask(self, request: Request) -> Fields:
        """Answer a survivor list: with shares if everybody is there, with a vote if not."""
        state = self._load(request.integer("slot") // self._roster.batch_slots)
        state, answer = secagg.answer_survivors(state, unpack(request.fields.get("survivors")), signing_key=self._key)
        self._keystore.store(self._run, state)
        return {"answer": pack(answer)}

    def votes(self, request: Request) -> Fields:
        """Answer the votes of the survivors with shares."""
        state = self._load(request.integer("slot") // self._roster.batch_slots)
        state, answer = secagg.answer_votes(state, unpack(request.fields.get("votes")), signing_key=self._key)
        self._keystore.store(self._run, state)
        return {"answer": pack(answer)}

    def _load(self, batch: int) -> secagg.SiteState:
        """Return a batch's state, if it was made for this plan, roster and run."""
        state = self._keystore.load(self._run, batch)
        if state.setup.context != setup_for(self._plan, self._roster, run=self._run, batch=batch).context:
            raise ProtocolError("the batch was set up for another plan", rule="other-context")
        return state

    def _cohort(self, request: Request) -> tuple[int, ...]:
        cohort = request.fields.get("cohort")
        if not isinstance(cohort, list) or not all(isinstance(name, str) and name in self._names for name in cohort):
            raise ProtocolError("the round's cohort names unknown sites", rule="unknown-site")
        return tuple(sorted(self._names[name] for name in cohort))
