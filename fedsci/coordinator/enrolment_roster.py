"""The roster as the enrolment state holds it: who is in it, when its serial rises, and which one may be given out.

Each step runs within a transaction of :mod:`fedsci.coordinator.enrolment_store`.
"""

from pathlib import Path
from sqlite3 import Connection

from fedsci import secagg
from fedsci.coordinator.enrolment_store import fact, one, set_fact
from fedsci.errors import InputError
from fedsci.names import SiteId
from fedsci.secagg.profiles import profile_of_seed
from fedsci.secagg.terms import SMALLEST_COHORT


def members(db: Connection) -> tuple[secagg.RosterSite, ...]:
    """Return the active sites, as a roster lists them."""
    return tuple(
        secagg.RosterSite(index=row["number"], name=SiteId(row["name"]), verification_key=row["verification_key"])
        for row in db.execute("SELECT * FROM sites WHERE state = 'active' ORDER BY number")
    )


def members_changed(db: Connection, key: Path) -> None:
    """Raise the serial, and sign a roster if there is one to sign and the consortium's key is here."""
    set_fact(db, "serial", str(int(fact(db, "serial")) + 1))
    if len(members(db)) >= SMALLEST_COHORT and key.exists():
        sign_members(db, read_consortium_key(key))


def sign_members(db: Connection, signer: secagg.SigningKey) -> bytes:
    """Sign the present members, and keep the roster under the present serial."""
    serial, listed = int(fact(db, "serial")), members(db)
    roster = secagg.Roster(serial=serial, sites=listed, terms=secagg.default_terms(len(listed)))
    signed = secagg.sign_roster(roster, signer)
    db.execute("INSERT OR REPLACE INTO rosters VALUES (?, ?)", (serial, signed))
    return signed


def newest_roster(db: Connection) -> bytes | None:
    """Return the newest signed roster, or None if it names a site that is out by now, or there is none."""
    row = one(db, "SELECT content FROM rosters ORDER BY serial DESC LIMIT 1")
    if row is None:
        return None
    signed: bytes = row["content"]
    listed = secagg.open_roster(signed, consortium_key=bytes.fromhex(fact(db, "consortium"))).sites
    return signed if set(listed) <= set(members(db)) else None


def roster_is_current(db: Connection) -> bool:
    """Return whether the newest signed roster names all active sites and no other."""
    return one(db, "SELECT 1 FROM rosters WHERE serial = ?", int(fact(db, "serial"))) is not None


def read_consortium_key(path: Path) -> secagg.SigningKey:
    """Return the key that signs rosters.

    Raises:
        InputError: the file holds no such key.
    """
    seed = path.read_bytes()
    if profile_of_seed(seed) is None:
        raise InputError(
            f"{path} is not a consortium's key", hint="it has neither 32 nor 48 bytes; restore it from a backup"
        )
    return secagg.SigningKey(secagg.Seed(seed))
