"""What a site that enrols must pass: its token, its name, its keys.

Each step runs within a transaction of :mod:`fedsci.coordinator.enrolment_store`, so that a refusal undoes them all.
"""

import hmac
from sqlite3 import Connection

from fedsci.coordinator.enrolment_store import one
from fedsci.identity.messages import refuse
from fedsci.identity.token import secret_digest
from fedsci.names import SiteId

_LAST_INDEX = 65535


def burn_token(db: Connection, site: SiteId, secret: bytes, *, now: float) -> None:
    """Use up the token, which must be open and for this site.

    Raises:
        EnrolmentRefused: ``token-unknown``, ``token-of-another-site``, ``token-used``, ``token-void`` or
            ``token-expired``.
    """
    wanted, found = secret_digest(secret), None
    for row in db.execute("SELECT * FROM tokens"):
        if hmac.compare_digest(row["digest"], wanted):
            found = row
    if found is None:
        refuse("token-unknown", "no such token")
    if found["site"] != site:
        refuse("token-of-another-site", f"the token is for {found['site']}")
    if found["state"] != "open":
        refuse(f"token-{found['state']}", "the token is spent")
    if found["expires"] <= now:
        refuse("token-expired", "the token has expired")
    db.execute("UPDATE tokens SET state = 'used' WHERE digest = ?", (wanted,))


def admit(db: Connection, site: SiteId, identity: bytes) -> tuple[int, bool]:
    """Return the site's number, and whether the members changed.

    Raises:
        EnrolmentRefused: ``keys-changed``, ``keys-used``, ``full``.
    """
    row = one(db, "SELECT * FROM sites WHERE name = ? AND state = 'active'", site)
    if row is not None:
        if identity != row["verification_key"]:
            refuse("keys-changed", f"{site} is enrolled with another verification key")
        return int(row["number"]), False
    if one(db, "SELECT 1 FROM sites WHERE verification_key = ?", identity):
        refuse("keys-used", "these keys belong to another site, or to one that was revoked")
    number = db.execute(
        "INSERT INTO sites (name, state, verification_key) VALUES (?, 'active', ?)", (site, identity)
    ).lastrowid
    if number is None or number > _LAST_INDEX:
        refuse("full", "the consortium has no number left")
    return number, True


def retire_former_keys(db: Connection, number: int, key: bytes, *, now: int) -> bool:
    """Revoke what was certified for other TLS keys of this site; return whether anything was.

    Raises:
        EnrolmentRefused: ``keys-used``: the key is another site's, or this one's before it was revoked.
    """
    if one(db, "SELECT 1 FROM certificates WHERE key = ? AND number != ?", key, number):
        refuse("keys-used", "this key was certified for another site, or one that was revoked")
    retired = db.execute(
        "UPDATE certificates SET revoked = ? WHERE number = ? AND key != ? AND revoked IS NULL", (now, number, key)
    )
    return retired.rowcount > 0
