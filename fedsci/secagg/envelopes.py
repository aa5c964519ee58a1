"""Shares sealed from one site to another, so that the coordinator carries what it cannot read.

AES-256-GCM under a key that grows from both sites' channel keys and names the direction; the associated
data is the transcript hash, so an envelope opens only where every advert was seen alike.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedsci.errors import ProtocolError
from fedsci.secagg.keys import RandomBytes, derive, exchange, labelled
from fedsci.secagg.profile import Profile
from fedsci.secagg.profiles import DEFAULT
from fedsci.secagg.seed import Seed
from fedsci.secagg.shamir import ELEMENT_BYTES, decode_element
from fedsci.secagg.wire import number

PAIR_BYTES = 2 * ELEMENT_BYTES
_NONCE_BYTES = 12


def _cipher(shared: Seed, context: bytes, sender: int, recipient: int, profile: Profile) -> AESGCM:
    parts = (number(sender, 2), number(recipient, 2))
    return AESGCM(derive(shared, salt=context, label="share envelope", parts=parts, profile=profile).reveal())


def _associated(context: bytes, transcript: bytes, sender: int, recipient: int) -> bytes:
    return labelled("envelope", context, transcript, number(sender, 2), number(recipient, 2))


def seal(
    plain: dict[int, bytes],
    *,
    channel: Seed,
    sender: int,
    channel_keys: dict[int, bytes],
    context: bytes,
    transcript: bytes,
    random_bytes: RandomBytes,
    profile: Profile = DEFAULT,
) -> tuple[tuple[int, bytes], ...]:
    """Return one envelope per recipient of ``plain``, by rising recipient."""
    recipients = tuple(sorted(plain))
    sealed = []
    shared_secrets = exchange(channel, tuple(channel_keys[to] for to in recipients), profile)
    for to, shared in zip(recipients, shared_secrets, strict=True):
        nonce = random_bytes(_NONCE_BYTES)
        cipher = _cipher(shared, context, sender, to, profile)
        sealed.append((to, nonce + cipher.encrypt(nonce, plain[to], _associated(context, transcript, sender, to))))
    return tuple(sealed)


def unseal(
    sealed: tuple[tuple[int, bytes], ...],
    *,
    channel: Seed,
    recipient: int,
    channel_keys: dict[int, bytes],
    context: bytes,
    transcript: bytes,
    slots: int,
    profile: Profile = DEFAULT,
) -> dict[int, bytes]:
    """Return each sender's shares: for every slot a self-mask share and a mask-key share.

    Raises:
        ProtocolError: ``bad-envelope`` naming the sender if an envelope was not sealed by it, for this site
        and
            transcript, or does not hold field elements.
    """
    opened = {}
    senders = tuple(sender for sender, _ in sealed)
    shared_secrets = exchange(channel, tuple(channel_keys[sender] for sender in senders), profile)
    for (sender, content), shared in zip(sealed, shared_secrets, strict=True):
        cipher = _cipher(shared, context, sender, recipient, profile)
        nonce, body = content[:_NONCE_BYTES], content[_NONCE_BYTES:]
        try:
            plain = cipher.decrypt(nonce, body, _associated(context, transcript, sender, recipient))
            if len(plain) != slots * PAIR_BYTES:
                raise ValueError("wrong size")
            for at in range(0, len(plain), ELEMENT_BYTES):
                decode_element(plain[at : at + ELEMENT_BYTES])
        except (InvalidTag, ValueError, ProtocolError) as error:
            raise ProtocolError(
                f"the shares from site {sender} to site {recipient} do not open under this transcript",
                rule="bad-envelope",
                hint=f"leave site {sender} out, or set the batch up again",
            ) from error
        opened[sender] = plain
    return opened
