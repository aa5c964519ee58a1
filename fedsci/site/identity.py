"""Who this site is to others: its keys, made here and never sent, its certificate, and the roster it accepts."""

import contextlib
import datetime
import fcntl
import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography import x509

from fedsci import secagg
from fedsci.config.site import Site
from fedsci.errors import EnrolmentRefused, InputError, PolicyRefused, ProtocolError
from fedsci.identity.address import Address, parse_address
from fedsci.identity.certificates import (
    chain_pem,
    check_site_chain,
    fingerprint,
    is_due,
    key_pem,
    look_every_s,
    new_key,
    parse_chain,
    profile_of,
    read_chain,
    read_key,
    signing_request,
)
from fedsci.identity.files import replace_private, write_private
from fedsci.identity.messages import Answer, EnrolRequest, RenewRequest, refuse
from fedsci.identity.tls import client_context
from fedsci.identity.token import Token
from fedsci.names import SiteId
from fedsci.secagg.profile import Profile
from fedsci.secagg.profiles import DEFAULT, require_profile
from fedsci.site.keystore import Keystore
from fedsci.transport import enrolment_client

JOIN_AGAIN = "ask the coordinator for a token, then: fedsci site join SITE_FILE TOKEN"
DEFAULT_STATE = Path("/var/lib/fedsci")


def state_folder(site: Site, chosen: Path | None) -> Path:
    """Return where a site keeps its state: as chosen, else as its file says, else ``/var/lib/fedsci``."""
    if chosen is not None:
        return chosen
    return site.folder / site.state if site.state is not None else DEFAULT_STATE


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a site may tell people about itself; nothing in it is secret.

    Attributes:
        site: its name.
        enrolled: whether it holds a certificate.
        verification_key: hexadecimal; what the roster names.
        crypto_profile: of its keys and, once it has joined, of its consortium.
        certificate: SHA-256 of the certificate's DER; empty without one.
        until: when the certificate ends.
        root: SHA-256 of the root certificate's DER.
        consortium_key: what signs rosters, hexadecimal.
        address: the enrolment service.
        fleet_address: where studies run.
        index: its number in the roster.
        roster: serial of the newest roster accepted; None before the first.
        roster_sites: how many sites it names.
    """

    site: SiteId
    enrolled: bool
    verification_key: str
    crypto_profile: str
    certificate: str = ""
    until: datetime.datetime | None = None
    root: str = ""
    consortium_key: str = ""
    address: str = ""
    fleet_address: str = ""
    index: int | None = None
    roster: int | None = None
    roster_sites: int = 0


class SiteIdentity:
    """A site's keys and certificate, in its state folder.

    ``identity.key`` (Ed25519, or P-384 in the crypto profile ``fips``) signs statements; ``tls/site.key`` (P-256)
    serves TLS and Flower's node authentication, and stays when its certificate, ``tls/site.crt``, is renewed: Flower
    knows the site by it. The folder also holds ``tls/ca.crt``, ``consortium.pub``, ``consortium.json`` and ``roster``.

    Args:
        site: the site's name.
        state: its state folder.
    """

    def __init__(self, site: SiteId, state: Path) -> None:
        self.site, self.state = site, state
        self._tls = state / "tls"
        self._keystore = Keystore(state)

    def create(self, *, new_keys: bool = False, profile: Profile | None = None) -> Facts:
        """Make the site's keys, or keep those that are there.

        Args:
            new_keys: throw the old ones away; the site must enrol again, under a new number.
            profile: the crypto profile that the site will have and no other; None: that of the keys that are there, or
                of the consortium it will join.

        Raises:
            InputError: the folder cannot be written, or is another site's.
            ProtocolError: ``wrong-profile``: its keys or its consortium are of another.
        """
        try:
            self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._locked():
                self._claim()
                if profile is not None:
                    self._keystore.require_pinned(profile)
                if new_keys:
                    self._forget_keys()
                if profile is not None:
                    self._keystore.choose_profile(profile)
                self._keystore.signing_key()
                write_private(self._key_path, key_pem(new_key()))
        except OSError as error:
            raise InputError(
                f"cannot keep the site's keys in {self.state}: {error.strerror}",
                hint="choose a folder with --state, or with state: in the site file",
            ) from None
        return self.describe()

    def join(self, token: Token) -> Facts:
        """Enrol with a token, and keep what came back once it checks out.

        Raises:
            InputError: the token is another site's.
            PolicyRefused: the site belongs to another consortium.
            ConnectionFailed: no connection, a stranger at the address, or a refusal (EnrolmentRefused).
            ProtocolError: ``wrong-profile``: the consortium is of a crypto profile that this site does not go back to.
        """
        if token.site != self.site:
            raise InputError(
                f"the token is for {token.site}, and this site is {self.site}", hint="ask for one of your own"
            )
        self._require_keys()
        with self._locked():
            if (self.state / "consortium.pub").exists() and self._keystore.consortium_key() != token.consortium_key:
                raise PolicyRefused(
                    "this site belongs to another consortium",
                    hint=f"its key is pinned in {self.state / 'consortium.pub'}",
                )
            if token.profile is DEFAULT:
                require_profile(token.profile, self._keystore.profile, "the consortium of this token")
            root = enrolment_client.fetch_root(token.address, expected=token.root, profile=token.profile)
            require_profile(profile_of(root), token.profile, "the coordinator's root certificate")
            self._keystore.choose_profile(token.profile)  # keys of a site that has joined nowhere are made anew
            answer = enrolment_client.enrol(token.address, root, lambda: self._request(token))
            self._keep(answer, root, address=token.address, consortium_key=token.consortium_key)
        return self.describe()

    def renew_if_due(self, now: datetime.datetime | None = None) -> bool:
        """Renew the certificate if a third of its life or less is left; return whether it was renewed.

        For a daemon to call as it starts and then every :attr:`look_every_s`. A failure leaves the old certificate in
        use. Connections that begin later show the new one; an open one lasts until the old one ends.

        Raises:
            InputError: the site is not enrolled.
            ConnectionFailed: see :meth:`join`; try again later, unless it is EnrolmentRefused.
        """
        self._certificate()
        with self._locked():
            leaf = self._certificate()
            if not is_due(leaf, now or datetime.datetime.now(datetime.UTC)):
                return False
            self._renew(leaf)
        return True

    @property
    def look_every_s(self) -> float:
        """How often to call :meth:`renew_if_due`."""
        return look_every_s(self._certificate())

    def renew(self) -> None:
        """Renew the certificate now; errors as in :meth:`renew_if_due`."""
        self._certificate()
        with self._locked():
            self._renew(self._certificate())

    def accept_roster(self, signed: bytes) -> secagg.Roster:
        """Keep a roster that the consortium signed, that is not older than the last, and names this site's own key.

        Raises:
            ProtocolError: ``roster-signature``, ``old-roster``, ``unknown-site`` or ``own-key``.
        """
        roster = self._open_roster(signed, self._keystore.consortium_key())
        self._keystore.check_serial(roster.serial)
        replace_private(self.state / "roster", signed)
        return roster

    def roster(self) -> secagg.Roster | None:
        """Return the newest roster accepted, or None before the first."""
        path = self.state / "roster"
        return self._roster(self._keystore.consortium_key()) if path.exists() else None

    def tls_context(self) -> ssl.SSLContext:
        """Return a client's TLS context that shows this site's certificate; make a new one after a renewal.

        Raises:
            InputError: the site is not enrolled.
        """
        self._certificate()
        root = self._root_path.read_bytes()
        return client_context(root, certificate=self._certificate_path, key=self._key_path)

    @property
    def address(self) -> Address:
        """The enrolment service."""
        return parse_address(str(self._place()["address"]), port=0)

    @property
    def outlived(self) -> str:
        """What to say if the certificate has run out; empty while it is good, and without one."""
        until = self._certificate().not_valid_after_utc if self._enrolled() else None
        if until is None or until > datetime.datetime.now(datetime.UTC):
            return ""
        return f"the certificate ran out on {until:%Y-%m-%d %H:%M} UTC; {JOIN_AGAIN}"

    @property
    def fleet_address(self) -> Address:
        """Where studies run."""
        return parse_address(str(self._place()["fleet_address"]), port=0)

    def describe(self) -> Facts:
        """Return what may be told.

        Raises:
            InputError: the site has no keys yet.
        """
        self._require_keys()
        facts = Facts(
            site=self.site,
            enrolled=False,
            verification_key=self._keystore.signing_key().public.hex(),
            crypto_profile=self._keystore.profile.name,
        )
        if not self._enrolled():
            return facts
        leaf, place, roster = self._certificate(), self._place(), self.roster()
        return replace(
            facts,
            enrolled=True,
            certificate=fingerprint(leaf).hex(),
            until=leaf.not_valid_after_utc,
            root=fingerprint(read_chain(self._root_path)[0]).hex(),
            consortium_key=self._keystore.consortium_key().hex(),
            address=place["address"],
            fleet_address=place["fleet_address"],
            index=int(place["index"]),
            roster=None if roster is None else roster.serial,
            roster_sites=0 if roster is None else len(roster.sites),
        )

    @property
    def _root_path(self) -> Path:
        return self._tls / "ca.crt"

    @property
    def _key_path(self) -> Path:
        return self._tls / "site.key"

    @property
    def _certificate_path(self) -> Path:
        return self._tls / "site.crt"

    def _request(self, token: Token) -> EnrolRequest:
        identity = self._keystore.signing_key()
        return EnrolRequest(
            site=self.site,
            secret=token.secret.reveal(),
            csr=signing_request(self.site, read_key(self._key_path)),
            verification_key=identity.public,
        ).signed(identity)

    def _renew(self, old: x509.Certificate) -> None:
        root, key = read_chain(self._root_path)[0], read_key(self._key_path)
        request = RenewRequest(
            site=self.site,
            serial=f"{old.serial_number:x}",
            time=int(time.time()),
            csr=signing_request(self.site, key),
        ).signed(key, self._keystore.signing_key())
        answer = enrolment_client.renew(self.address, root, request)
        self._keep(answer, root, address=self.address, consortium_key=self._keystore.consortium_key())

    def _keep(
        self,
        answer: Answer,
        root: x509.Certificate,
        *,
        address: Address,
        consortium_key: bytes,
    ) -> None:
        """Store an answer, if all of it is as it should be."""
        try:
            chain = parse_chain(answer.certificate.encode(), where="the coordinator's answer")
            fleet = parse_address(answer.fleet_address, port=0)
        except InputError as error:
            refuse("certificate", error.message)
        now = datetime.datetime.now(datetime.UTC)
        check_site_chain(chain, root=root, site=self.site, key=read_key(self._key_path).public_key(), now=now)
        if answer.roster is not None:
            try:
                self._open_roster(answer.roster, consortium_key, index=answer.index)
            except ProtocolError as error:
                raise EnrolmentRefused(
                    f"the coordinator's roster is not acceptable: {error.message}",
                    rule=error.rule,
                    hint="nothing was stored; do not take part before the coordinator has explained it",
                ) from None
        self._keystore.pin_consortium(consortium_key)
        replace_private(self._root_path, chain_pem(root))
        place = {"address": str(address), "fleet_address": str(fleet), "index": str(answer.index)}
        replace_private(self.state / "consortium.json", json.dumps(place).encode())
        replace_private(self._certificate_path, chain_pem(*chain))
        if answer.roster is not None:
            self.accept_roster(answer.roster)

    def _open_roster(self, signed: bytes, consortium_key: bytes, *, index: int | None = None) -> secagg.Roster:
        roster = secagg.open_roster(signed, consortium_key=consortium_key)
        held = self._roster(consortium_key)
        if held is not None and roster.serial < held.serial:
            raise ProtocolError(f"roster {roster.serial} is older than roster {held.serial}", rule="old-roster")
        own = [member for member in roster.sites if member.name == self.site]
        if not own or index not in (None, own[0].index):
            raise ProtocolError(f"{self.site} is not in the roster", rule="unknown-site")
        if own[0].verification_key != self._keystore.signing_key().public:
            raise ProtocolError(f"the roster names a key for {self.site} that is not this site's", rule="own-key")
        return roster

    def _roster(self, consortium_key: bytes) -> secagg.Roster | None:
        path = self.state / "roster"
        return secagg.open_roster(path.read_bytes(), consortium_key=consortium_key) if path.exists() else None

    def _place(self) -> dict[str, str]:
        path = self.state / "consortium.json"
        try:
            values = json.loads(path.read_bytes())
            return {key: str(values[key]) for key in ("address", "fleet_address", "index")}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise InputError(f"cannot read {path}", hint="enrol again with a new token") from None

    def _enrolled(self) -> bool:
        return self._certificate_path.exists()

    def _certificate(self) -> x509.Certificate:
        if not self._enrolled():
            raise InputError(
                f"{self.site} is not enrolled ({self.state} holds no certificate)",
                hint=JOIN_AGAIN,
            )
        return read_chain(self._certificate_path)[0]

    def _require_keys(self) -> None:
        if not self._key_path.exists():
            raise InputError(
                f"{self.state} holds no keys of {self.site}", hint="make them with: fedsci site init SITE_FILE"
            )
        self._claim()

    def _claim(self) -> None:
        """Note whose folder this is; two sites sharing one would share keys and ledger."""
        path = self.state / "site.name"
        write_private(path, self.site.encode())
        owner = path.read_text(encoding="utf-8")
        if owner != self.site:
            raise InputError(
                f"{self.state} is the state folder of {owner}, not of {self.site}",
                hint="give every site a folder of its own, with --state or with state: in the site file",
            )

    def _forget_keys(self) -> None:
        for name in ("tls/site.crt", "roster", "consortium.json", "identity.key", "tls/site.key"):
            (self.state / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the keys: one process at a time enrols or renews."""
        self._tls.mkdir(mode=0o700, exist_ok=True)
        path = self._tls / "lock"
        path.touch(mode=0o600)
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
