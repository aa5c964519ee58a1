"""Opening secrets from shares, each checked against what its dealer committed to.

A self-mask seed must match its published hash, a mask-key seed its published key. Wrong shares are found
and their holders named; a dealer whose secret does not open from enough shares is named too.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from fedsci.errors import ProtocolError, RoundAborted
from fedsci.secagg.keys import exchange_public
from fedsci.secagg.messages import Advert
from fedsci.secagg.seed import Seed
from fedsci.secagg.shamir import Recovered, encode_element, recover
from fedsci.secagg.transcript import self_mask_commitment


@dataclass(frozen=True, kw_only=True)
class Suspicion:
    """A share that is certainly not on its dealer's polynomial, though the committed secret was found.

    Either ``holder`` altered it or ``dealer`` dealt it wrong. A holder that is suspected under many dealers
    lied; a dealer suspected under many holders did.
    """

    dealer: int
    holder: int


def _open(shares: Mapping[int, int], threshold: int, dealer: int, what: str, found: Recovered | None) -> Recovered:
    if found is not None:
        return found
    if len(shares) < threshold:
        raise RoundAborted(
            f"{len(shares)} shares of the {what} of site {dealer}, {threshold} are needed",
            hint="too many sites left before they answered",
            public="too few sites answered to unmask the sum",
        )
    raise ProtocolError(
        f"the shares of site {dealer} do not open the {what} it committed to",
        rule="wrong-shares",
        hint=f"leave site {dealer} out of the next setup",
    )


def open_self_mask(
    advert: Advert, slot: int, shares: Mapping[int, int], threshold: int
) -> tuple[Seed, tuple[Suspicion, ...]]:
    """Return the self-mask seed of ``advert.site``, and whose shares of it were wrong."""

    def confirms(value: int) -> bool:
        offered = self_mask_commitment(advert.context, advert.site, slot, encode_element(value))
        return hmac.compare_digest(offered, advert.commitments[slot])

    found = recover(shares, threshold=threshold, confirms=confirms)
    found = _open(shares, threshold, advert.site, "self-mask seed", found)
    return Seed(encode_element(found.secret)), _suspicions(advert.site, found)


def open_mask_key(
    advert: Advert, slot: int, shares: Mapping[int, int], threshold: int
) -> tuple[Seed, tuple[Suspicion, ...]]:
    """Return the mask-key seed of ``advert.site``, and whose shares of it were wrong."""

    def confirms(value: int) -> bool:
        return hmac.compare_digest(exchange_public(Seed(encode_element(value)), advert.profile), advert.mask_keys[slot])

    found = recover(shares, threshold=threshold, confirms=confirms)
    found = _open(shares, threshold, advert.site, "mask-key seed", found)
    return Seed(encode_element(found.secret)), _suspicions(advert.site, found)


def _suspicions(dealer: int, found: Recovered) -> tuple[Suspicion, ...]:
    return tuple(Suspicion(dealer=dealer, holder=holder) for holder in found.wrong)
