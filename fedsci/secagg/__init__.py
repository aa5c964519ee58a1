"""Secure aggregation: the coordinator learns one sum per slot, even if it cheats; see docs/protocol.md.

A batch, with every message passing through the coordinator:

=====================  ========================================  ==========================================
exchange               site                                      coordinator
=====================  ========================================  ==========================================
setup 1                ``advertise`` -> advert                   ``SetupCollector.add_advert, close_adverts``
setup 2                ``share`` -> envelopes                    ``add_envelopes, close_envelopes``
(with the next call)   ``accept_shares``                         deliveries from ``close_envelopes``
round, upload          ``mask`` -> header, payload               ``RoundCollector.add_input, close_inputs``
round, unmask          ``answer_survivors`` -> shares            ``add_shares, finish``
  if somebody dropped  ``answer_survivors`` -> vote              ``add_vote, close_votes``
                       ``answer_votes`` -> shares                ``add_shares, finish``
=====================  ========================================  ==========================================

Site steps take a :class:`SiteState` and return the next: store ``state.encode()`` durably, then send. Any
step may run in a fresh process from ``SiteState.decode(stored)``. A round with a dropout, end to end in
memory, is in tests/secagg/test_round.py.
"""

from fedsci.secagg.cohort import Cohort, Setup, choose_cohort
from fedsci.secagg.coordinator_steps import ReadySetup, RoundCollector, RoundSum, SetupCollector
from fedsci.secagg.keys import RandomBytes, SigningKey
from fedsci.secagg.masking import RoundCall
from fedsci.secagg.prg import MaskEngine, calibrate
from fedsci.secagg.quantisation import Quantisation, Quantised, dequantise, plan_quantisation, quantise
from fedsci.secagg.recovery import Suspicion
from fedsci.secagg.ring import RingSpec, RingVector, SignedVector, check_headroom, noisy_sum_bound
from fedsci.secagg.roster import Roster, RosterSite, open_roster, sign_roster
from fedsci.secagg.seed import Seed
from fedsci.secagg.site_setup import accept_shares, advertise, advertise_again, burn, share
from fedsci.secagg.site_state import Phase, SiteState
from fedsci.secagg.site_steps import MaskedInput, answer_survivors, answer_votes, mask
from fedsci.secagg.terms import Terms, default_terms

__all__ = [
    "Cohort",
    "MaskEngine",
    "MaskedInput",
    "Phase",
    "Quantisation",
    "Quantised",
    "RandomBytes",
    "ReadySetup",
    "RingSpec",
    "RingVector",
    "Roster",
    "RosterSite",
    "RoundCall",
    "RoundCollector",
    "RoundSum",
    "Seed",
    "Setup",
    "SetupCollector",
    "SignedVector",
    "SigningKey",
    "SiteState",
    "Suspicion",
    "Terms",
    "accept_shares",
    "advertise",
    "advertise_again",
    "answer_survivors",
    "answer_votes",
    "burn",
    "calibrate",
    "check_headroom",
    "choose_cohort",
    "default_terms",
    "dequantise",
    "mask",
    "noisy_sum_bound",
    "open_roster",
    "plan_quantisation",
    "quantise",
    "share",
    "sign_roster",
]
