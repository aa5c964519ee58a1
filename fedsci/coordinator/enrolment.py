"""Who may enrol, who has, and who is out: the rules and their state. No network here.

Everything lies in ``enrolment.sqlite`` in the coordinator's folder; a step is one transaction, durable before its
answer leaves. ``crl`` and ``roster`` are written from it. Tokens are kept by their digest only.
"""

import datetime
import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from sqlite3 import Connection, Row
from typing import Literal

from cryptography.hazmat.primitives.asymmetric import ec

from fedsci import secagg
from fedsci.coordinator.authority import CRL_DAYS, SITE_DAYS, Authority, Clock, Revoked, utc_now
from fedsci.coordinator.enrolment_admission import admit, burn_token, retire_former_keys
from fedsci.coordinator.enrolment_roster import (
    members,
    members_changed,
    newest_roster,
    read_consortium_key,
    roster_is_current,
    sign_members,
)
from fedsci.coordinator.enrolment_store import Store, fact, one, set_fact
from fedsci.errors import InputError
from fedsci.identity.address import Address, parse_address
from fedsci.identity.certificates import fingerprint, look_every_s, public_der, requested_key
from fedsci.identity.files import replace_private, write_private
from fedsci.identity.messages import Answer, EnrolRequest, RenewRequest, refuse
from fedsci.identity.token import SECRET_BYTES, Token
from fedsci.names import SiteId, site_id
from fedsci.secagg.profile import Profile
from fedsci.secagg.profiles import DEFAULT, profile_of_key
from fedsci.secagg.terms import SMALLEST_COHORT

ENROLMENT_PORT, FLEET_PORT = 9443, 9444
TOKEN_HOURS = 24.0
CLOCK_SLACK_S = 3600


@dataclass(frozen=True, kw_only=True)
class EnrolledSite:
    """What the coordinator knows of a site.

    Attributes:
        name: the site.
        state: ``invited`` (a token waits), ``active`` or ``revoked``.
        index: its number in rosters; 0 while invited.
        until: when its newest certificate ends; for ``invited``, its token.
        verification_key: of its signatures; empty while invited.
        certificate: the newest, PEM, with the issuing one; empty while invited.
    """

    name: SiteId
    state: Literal["invited", "active", "revoked"]
    index: int
    until: datetime.datetime
    verification_key: bytes
    certificate: bytes


class Enrolment:
    """The consortium's members, in the coordinator's folder; safe to use from many processes and threads.

    Args:
        folder: made by :meth:`create`.
        clock: returns the time, in UTC.

    Raises:
        InputError: the folder holds no consortium.
    """

    def __init__(self, folder: Path, *, clock: Clock = utc_now) -> None:
        self.folder, self._clock = folder, clock
        self.authority = Authority(folder, clock=clock)  # says so if there is none
        self._store = Store(folder / "enrolment.sqlite")
        self.authority = Authority(folder, clock=clock, site_days=self._site_days)

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        addresses: Sequence[Address],
        fleet_port: int = FLEET_PORT,
        passphrase: str | None = None,
        site_days: float = SITE_DAYS,
        clock: Clock = utc_now,
        profile: Profile = DEFAULT,
    ) -> "Enrolment":
        """Found a consortium in a new or empty folder.

        Args:
            folder: where.
            addresses: what sites call the coordinator; tokens carry the first.
            fleet_port: where studies run, on the same host.
            passphrase: encrypts the root's key.
            site_days: how long certificates of sites are good.
            clock: returns the time, in UTC.
            profile: the crypto profile of all its members, for life.

        Raises:
            InputError: the folder holds something already, or cannot be written.
        """
        try:
            if folder.exists() and any(folder.iterdir()):
                raise InputError(f"{folder} is not empty", hint="a consortium starts in a folder of its own")
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
            write_private(folder / "consortium.key", secrets.token_bytes(profile.seed_bytes))
            hosts = [address.host for address in addresses]
            Authority.create(
                folder, hosts=hosts, passphrase=passphrase, clock=clock, site_days=site_days, profile=profile
            )
            values = {
                "address": str(addresses[0]),
                "fleet_address": str(Address(addresses[0].host, fleet_port)),
                "hosts": json.dumps(hosts),
                "serial": "0",
                "crl": "1",
                "site_days": repr(float(site_days)),
                "consortium": read_consortium_key(folder / "consortium.key").public.hex(),
            }
            Store.create(folder / "enrolment.sqlite", values)
        except OSError as error:
            raise InputError(
                f"cannot write {folder}: {error.strerror}", hint="choose another folder with --dir"
            ) from None
        return cls(folder, clock=clock)

    @property
    def address(self) -> Address:
        """Where the enrolment service listens, as sites call it."""
        with self._store.reading() as db:
            return parse_address(fact(db, "address"), port=ENROLMENT_PORT)

    @property
    def fleet_address(self) -> Address:
        """Where studies run, as sites call it."""
        with self._store.reading() as db:
            return parse_address(fact(db, "fleet_address"), port=FLEET_PORT)

    @property
    def consortium_key(self) -> bytes:
        """The public key that sites pin."""
        with self._store.reading() as db:
            return bytes.fromhex(fact(db, "consortium"))

    @property
    def profile(self) -> Profile:
        """The crypto profile of the consortium; its key is of it, so no note in a file can change it."""
        return profile_of_key(self.consortium_key) or DEFAULT

    def invite(self, site: SiteId, *, who: str, hours: float = TOKEN_HOURS) -> Token:
        """Return a token that enrols ``site`` once; one that still waits for it is void from now on.

        Raises:
            InputError: the lifetime makes no sense.
        """
        if not 0 < hours <= 24 * 30:
            raise InputError(f"a token cannot be good for {hours:g} hours", hint="choose up to 720 hours (30 days)")
        expires = int(self._clock().timestamp() + hours * 3600)
        with self._store.writing() as db:
            token = Token(
                address=parse_address(fact(db, "address"), port=ENROLMENT_PORT),
                site=site,
                root=fingerprint(self.authority.root),
                consortium_key=bytes.fromhex(fact(db, "consortium")),
                secret=secagg.Seed(secrets.token_bytes(SECRET_BYTES)),
                expires=expires,
            )
            db.execute("UPDATE tokens SET state = 'void' WHERE site = ? AND state = 'open'", (site,))
            db.execute("INSERT INTO tokens VALUES (?, ?, ?, 'open')", (token.digest, site, expires))
            self._note(db, who, "invite", site)
        return token

    def enrol(self, request: EnrolRequest) -> Answer:
        """Burn the token, take the site in and return its certificate; all of it happens, or nothing.

        Raises:
            EnrolmentRefused: see docs/enrolment.md for the rules.
        """
        site = _named(request.site)
        if profile_of_key(request.verification_key) is not self.profile:
            refuse("wrong-profile", f"the key of {site} is not of the crypto profile {self.profile.name}")
        request.check()
        key = requested_key(request.csr, site)
        with self._store.writing() as db:
            burn_token(db, site, request.secret, now=self._clock().timestamp())
            number, changed = admit(db, site, request.verification_key)
            if retire_former_keys(db, number, public_der(key), now=self._now):
                self._write_crl(db)
            chain = self._issue(db, site, number, key, request.body())
            if changed:
                members_changed(db, self._consortium_path)
            self._note(db, "service", "enrol", site)
            answer = self._answer(db, number, chain)
        self._export_roster()
        return answer

    def renew(self, request: RenewRequest) -> Answer:
        """Return the next certificate of a site that shows it has the present one.

        Raises:
            EnrolmentRefused: see docs/enrolment.md for the rules.
        """
        site, now = _named(request.site), self._now
        with self._store.writing() as db:
            held = one(db, "SELECT * FROM certificates WHERE serial = ?", request.serial)
            row = one(db, "SELECT * FROM sites WHERE number = ?", held["number"]) if held else None
            if held is None or row is None or row["name"] != site:
                refuse("unknown-site", f"{site} has no such certificate")
            key = requested_key(request.csr, site)
            if public_der(key) != held["key"]:
                refuse("csr", "a renewal keeps the key")
            request.check(key, row["verification_key"])
            if held["revoked"] is not None or row["state"] != "active":
                refuse("revoked", f"{site} was revoked")
            if held["until"] <= now:
                refuse("expired", f"the certificate of {site} ran out")
            if abs(request.time - now) > CLOCK_SLACK_S:
                refuse("clock", f"the clock of {site} is {request.time - now} s ahead")
            if one(db, "SELECT 1 FROM certificates WHERE request = ?", _digest(request.body())):
                refuse("replayed", "this very request was answered before")
            chain = self._issue(db, site, row["number"], key, request.body())
            self._note(db, "service", "renew", site)
            return self._answer(db, row["number"], chain)

    def revoke(self, site: SiteId, *, who: str, reason: str = "") -> None:
        """Shut a site out for good: its certificates, its tokens, its place in the next roster.

        The revocation list is on disk before this returns; a server of :class:`~fedsci.identity.tls.ServerTls`
        refuses the site's next connection. Repeating it is harmless.

        Raises:
            InputError: no such site.
        """
        now = self._now
        with self._store.writing() as db:
            rows = db.execute("SELECT number, state FROM sites WHERE name = ?", (site,)).fetchall()
            void = db.execute("UPDATE tokens SET state = 'void' WHERE site = ? AND state = 'open'", (site,)).rowcount
            if not rows and not void:
                known = [row["name"] for row in db.execute("SELECT name FROM sites")]
                near = get_close_matches(site, known, n=1)
                raise InputError(
                    f"no site is called {site}",
                    hint=f"did you mean {near[0]}?" if near else "fedsci coordinator sites lists them",
                )
            for row in rows:
                db.execute("UPDATE sites SET state = 'revoked' WHERE number = ?", (row["number"],))
                db.execute(
                    "UPDATE certificates SET revoked = ? WHERE number = ? AND revoked IS NULL", (now, row["number"])
                )
            self._write_crl(db)
            if any(row["state"] == "active" for row in rows):
                members_changed(db, self._consortium_path)
            self._note(db, who, f"revoke: {reason}" if reason else "revoke", site)
        self._export_roster()

    def new_root(self, *, who: str, passphrase: str | None = None) -> None:
        """Start over with another root and issuing key, after a theft of the old; repeat it if it was cut short.

        Members, their numbers and verification keys stay. All certificates and tokens are void: each site joins again
        with a new token, and keeps its keys. Running servers must be restarted.
        """
        with self._store.writing() as db:
            db.execute("UPDATE certificates SET revoked = ? WHERE revoked IS NULL", (self._now,))
            db.execute("UPDATE tokens SET state = 'void' WHERE state = 'open'")
            hosts = json.loads(fact(db, "hosts"))
            self.authority = Authority.create(
                self.folder,
                hosts=hosts,
                passphrase=passphrase,
                clock=self._clock,
                site_days=self._site_days,
                profile=profile_of_key(bytes.fromhex(fact(db, "consortium"))) or DEFAULT,
            )
            self._write_crl(db)
            self._note(db, who, "new root", "")

    def sites(self) -> list[EnrolledSite]:
        """Return every site ever enrolled by index, then those invited."""
        found, now = [], self._now
        with self._store.reading() as db:
            for row in db.execute(
                "SELECT s.*, MAX(c.until) AS until, c.chain FROM sites s JOIN certificates c USING (number)"
                " GROUP BY s.number ORDER BY s.number"
            ):
                found.append(_enrolled(row))
            for row in db.execute(
                "SELECT site AS name, 'invited' AS state, 0 AS number, expires AS until, x'' AS verification_key,"
                " x'' AS chain FROM tokens WHERE state = 'open' AND expires > ? ORDER BY site",
                (now,),
            ):
                found.append(_enrolled(row))
        return found

    def site_with_certificate(self, serial: int) -> SiteId | None:
        """Return the active site whose unrevoked, unexpired certificate has this serial; else None.

        For servers that check every request, not only every handshake.
        """
        with self._store.reading() as db:
            row = one(
                db,
                "SELECT s.name, c.until FROM certificates c JOIN sites s USING (number)"
                " WHERE c.serial = ? AND c.revoked IS NULL AND s.state = 'active'",
                f"{serial:x}",
            )
        if row is None or row["until"] <= self._clock().timestamp():
            return None
        return SiteId(row["name"])

    def roster(self) -> bytes | None:
        """Return the newest signed roster, or None if it names a site that is out by now, or there is none."""
        with self._store.reading() as db:
            return newest_roster(db)

    def roster_is_current(self) -> bool:
        """Return whether the newest signed roster names all active sites and no other."""
        with self._store.reading() as db:
            return roster_is_current(db)

    def sign_roster(self, *, who: str, key: Path | None = None) -> secagg.Roster:
        """Sign the present members with the consortium's key, kept in ``key`` if not in the folder.

        Raises:
            InputError: the key is missing or another consortium's, or there are too few sites.
        """
        place = key or self._consortium_path
        if not place.exists():
            raise InputError(f"the consortium's key is not at {place}", hint="name the file with --consortium-key FILE")
        signer = read_consortium_key(place)
        with self._store.writing() as db:
            if signer.public.hex() != fact(db, "consortium"):
                raise InputError(f"{place} is not this consortium's key", hint="name the right file")
            active = len(members(db))
            if active < SMALLEST_COHORT:
                raise InputError(
                    f"{active} sites are too few for a roster: it takes {SMALLEST_COHORT}",
                    hint="enrol more sites first",
                )
            signed = sign_members(db, signer)
            self._note(db, who, "sign roster", "")
        self._export_roster()
        return secagg.open_roster(signed, consortium_key=signer.public)

    def maintain(self, *, passphrase: str | None = None) -> list[str]:
        """Renew what is due: issuing and server certificate, revocation list; return what was done or needs a person.

        For a service to call as it starts and then every :attr:`look_every_s`.
        """
        done, authority = [], self.authority
        with self._store.writing() as db:
            issuing = authority.issuing
            if authority.due(issuing):
                try:
                    authority.renew_issuing(authority.root_key(passphrase=passphrase))
                    done.append("renewed the issuing certificate")
                except InputError:
                    done.append(
                        f"the issuing certificate ends on {issuing.not_valid_after_utc:%Y-%m-%d}: bring the root's key"
                        " and run fedsci coordinator renew-ca --ca-key FILE"
                    )
            server = authority.server_certificate()
            if authority.due(server):
                authority.renew_server(json.loads(fact(db, "hosts")))
                done.append("renewed the server's certificate")
            crl_end = authority.crl().next_update_utc or self._clock()
            if crl_end - self._clock() < datetime.timedelta(days=CRL_DAYS) * 2 / 3:
                self._write_crl(db)
                done.append("renewed the revocation list")
        self._export_roster()
        return done

    @property
    def look_every_s(self) -> float:
        """How often to call :meth:`maintain`."""
        return look_every_s(self.authority.server_certificate())

    @property
    def _site_days(self) -> float:
        with self._store.reading() as db:
            row = one(db, "SELECT value FROM facts WHERE key = 'site_days'")
        return SITE_DAYS if row is None else float(row["value"])

    @property
    def _consortium_path(self) -> Path:
        return self.folder / "consortium.key"

    def _issue(
        self, db: Connection, site: SiteId, number: int, key: ec.EllipticCurvePublicKey, request: bytes
    ) -> bytes:
        leaf, chain = self.authority.issue_site(site, key)
        until = int(leaf.not_valid_after_utc.timestamp())
        row = (f"{leaf.serial_number:x}", number, public_der(key), chain, _digest(request), until)
        db.execute("INSERT INTO certificates VALUES (?, ?, ?, ?, ?, ?, NULL)", row)
        return chain

    def _answer(self, db: Connection, number: int, chain: bytes) -> Answer:
        return Answer(
            certificate=chain.decode("ascii"),
            index=number,
            roster=newest_roster(db),
            fleet_address=fact(db, "fleet_address"),
        )

    def _write_crl(self, db: Connection) -> None:
        """Write the list before the transaction ends, so that nothing is recorded as revoked that is not refused."""
        number = int(fact(db, "crl")) + 1
        set_fact(db, "crl", str(number))
        rows = db.execute(
            "SELECT serial, revoked FROM certificates WHERE revoked IS NOT NULL AND until > ?", (self._now,)
        )
        listed = [
            Revoked(serial=int(row["serial"], 16), at=datetime.datetime.fromtimestamp(row["revoked"], datetime.UTC))
            for row in rows
        ]
        self.authority.write_crl(listed, number=number)

    def _export_roster(self) -> None:
        signed, path = self.roster(), self.folder / "roster"
        if signed is None:
            path.unlink(missing_ok=True)
        elif not path.exists() or path.read_bytes() != signed:
            replace_private(path, signed)

    @property
    def _now(self) -> int:
        return int(self._clock().timestamp())

    def _note(self, db: Connection, who: str, what: str, site: str) -> None:
        db.execute("INSERT INTO events VALUES (?, ?, ?, ?)", (self._clock().isoformat(), who, what, site))


def _named(text: str) -> SiteId:
    try:
        return site_id(text)
    except InputError:
        refuse("request", "the site's name is not usable")


def _enrolled(row: Row) -> EnrolledSite:
    return EnrolledSite(
        name=SiteId(row["name"]),
        state=row["state"],
        index=row["number"],
        until=datetime.datetime.fromtimestamp(row["until"], datetime.UTC),
        verification_key=row["verification_key"],
        certificate=row["chain"],
    )


def _digest(request: bytes) -> bytes:
    return hashlib.sha256(request).digest()
