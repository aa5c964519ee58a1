"""A ledger that is held, checked against its chain, its writer and its anchor, and only then used."""

import contextlib
import fcntl
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection

from fedsci.errors import BudgetRefused, InputError, PolicyRefused, VerificationFailed
from fedsci.identity.files import write_private
from fedsci.secagg import SigningKey
from fedsci.secagg.profile import Profile
from fedsci.secagg.profiles import DEFAULT, require_profile
from fedsci.site.anchor import Anchor, Spent, read_anchor, write_anchor
from fedsci.site.keystore import random_seed
from fedsci.site.ledger_books import Account, Books, signed_part
from fedsci.site.ledger_store import GENESIS, UNUSABLE, Entry, LedgerBroken, Store, entry_of, follow
from fedsci.site.officer import sign

_WAY_OUT = (
    "use the newest ledger, anchor and state folder that belong together; if there are none, the privacy officer "
    "decides: "
    "fedsci privacy ledger SITE --adopt --reason TEXT"
)


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A ledger as an officer looks at it.

    Attributes:
        entries: oldest first; those behind a broken one are shown unchecked.
        books: what the entries up to the first broken one add up to.
        problem: the first thing that does not fit, or None where chain, signatures and anchor hold.
        anchor: where the head is kept a second time.
        store: where the entries lie, without a password.
    """

    entries: list[Entry]
    books: Books
    problem: VerificationFailed | None
    anchor: Path
    store: str


@dataclass(kw_only=True)
class Held:
    """A ledger that is held, checked, and may get one more entry.

    Attributes:
        books: up to its last entry.
        anchor: as it was found.
        connection: to the store.
        add: adds an entry, signed if a key is given.
        added: what was added.
    """

    books: Books
    anchor: Anchor | None
    connection: Connection
    add: Callable[..., None] = lambda *_: None
    added: list[Entry] = field(default_factory=list)


class KeptLedger:
    """Entries that are checked before every use, added one at a time, and anchored after each commit.

    Args:
        state: the site's state folder.
        site: the site's name; by default the folder's.
        url: where the entries lie, as ``read_url`` returns it; by default ``ledger.sqlite`` in ``state``.
        anchor: the file that keeps the head a second time; by default ``anchors/<site>.json`` beside ``state``.
        officer: the officer's public key in hex; by default the first that signs.
        profile: the site's crypto profile; an officer's key of another signs nothing.
    """

    def __init__(
        self,
        state: Path,
        *,
        site: str = "",
        url: URL | None = None,
        anchor: Path | None = None,
        officer: str = "",
        profile: Profile = DEFAULT,
    ) -> None:
        self.site = site or state.name
        self._state = state
        self._store = Store(url or URL.create("sqlite", database=str(state / "ledger.sqlite")), site=self.site)
        self._anchor_path = anchor or state.parent / "anchors" / f"{self.site}.json"
        self._officer, self.profile = officer, profile
        self._lock = threading.RLock()
        self._books: Books | None = None

    def entries(self) -> list[Entry]:
        """Return every entry, oldest first, after checking everything anew."""
        with self._lock:
            self._books = None
            with self._transaction() as held:
                return [entry_of(row) for row in self._store.rows(held.connection, since=0)]

    def head(self) -> tuple[int, str]:
        """Return number and hash of the last entry, after checking what is new; 0 and the chain's start if empty."""
        with self._transaction() as held:
            return held.books.sequence, held.books.head

    def number_of(self, digest: str) -> int | None:
        """Return the number of the entry with this hash, after checking what is new; None where there is none."""
        with self._transaction() as held:
            return 0 if digest == GENESIS else self._store.number_of(held.connection, digest)

    def inspect(self) -> Inspection:
        """Return all entries and the first thing that does not fit; makes no ledger where there is none."""
        with self._lock:
            books = self._new_books(make=False)
            rows: list[Any] = []
            entries: list[Entry] = []
            problem: VerificationFailed | None = None
            try:
                anchor = None
                if self._store.exists():
                    with self._alone(), self._store.begin() as connection:
                        rows = self._store.rows(connection, since=0)
                        with contextlib.suppress(BudgetRefused):  # the chain is looked at first
                            anchor = read_anchor(self._anchor_path)
                for entry in follow(rows, sequence=0, head=books.head):
                    books.take(entry)
                    entries.append(entry)
                if anchor is None:  # none there, damaged, or no ledger to go with it
                    anchor = read_anchor(self._anchor_path)
                misfit = self._misfit(books, anchor)
                if misfit is not None:
                    where = books.foreign.sequence if books.foreign else books.sequence
                    field = "writer" if books.foreign else "anchor"
                    problem = VerificationFailed(
                        f"entry {where}: {field}: the ledger {self._store.name}: {misfit}", hint=_WAY_OUT
                    )
            except (LedgerBroken, BudgetRefused) as error:
                problem = VerificationFailed(error.message, hint=error.hint)
                for row in rows[len(entries) :]:
                    with contextlib.suppress(LedgerBroken):
                        entries.append(entry_of(row))
            return Inspection(
                entries=entries, books=books, problem=problem, anchor=self._anchor_path, store=self._store.name
            )

    def adopt(self, *, reason: str, key: SigningKey) -> str:
        """Take a ledger that does not fit its anchor, or that another installation wrote, as this site's own.

        What was spent in entries that are lost stays charged as far as the anchor knows it. A ledger that only ends
        too early lacks the difference. One that went another way than the anchor has seen may share no charge with it,
        so all that the anchor knows is added: too much, as far as both began alike. Where the two count for other
        units or at other orders, and what is lost cannot be said in this one's, the data set's budget counts as used
        up. Open charges are closed, whole: which of their rounds were computed may be among what is lost.

        Returns:
            What was found.

        Raises:
            InputError: nothing is wrong, or there is no reason.
            PolicyRefused: the key is not the officer's.
            BudgetRefused: the chain or a signature is broken; only a good copy mends that.
        """
        check_reason(reason)
        with self._transaction(adopting=True) as held:
            books = held.books
            found = self._misfit(books, held.anchor)
            if found is None:
                raise InputError(f"{self.site}: nothing is wrong with the ledger", hint="there is nothing to adopt")
            held.add("adopt", "", "", {"found": found, "reason": reason, "lost": self._lost(held)}, key)
            return found

    def _lost(self, held: Held) -> dict[str, dict[str, float]]:
        """Return what the anchor knows was spent on each data set and the ledger does not hold."""
        books, anchor = held.books, held.anchor
        if anchor is None:
            return {}
        row = next(iter(self._store.rows(held.connection, since=anchor.sequence)), None)
        reached = row is not None and (row.sequence, row.hash) == (anchor.sequence, anchor.hash)
        cut = anchor.sequence > books.sequence and books.foreign is None and books.ledger in ("", anchor.ledger)
        lost = {}
        for dataset, anchored in anchor.spent.items():
            now, account = books.spent(dataset), books.accounts.get(dataset)
            shared = now if reached or cut else Spent(rdp=0.0, distance=0.0, order=anchored.order)
            rdp, distance = max(0.0, anchored.rdp - shared.rdp), max(0.0, anchored.distance - shared.distance)
            if rdp and account is not None and not _bounds(anchored, account):
                rdp = max(rdp, account.policy.rdp_capacity)
            if rdp or distance:
                lost[dataset] = asdict(Spent(rdp=rdp, distance=distance, order=anchored.order, unit=anchored.unit))
        return lost

    def close(self) -> None:
        """Let go of the database."""
        self._store.close()

    @contextlib.contextmanager
    def _transaction(self, *, adopting: bool = False) -> Iterator[Held]:
        """Check what is new, let the caller add an entry, make it durable, and only then move the anchor."""
        with self._lock, self._alone():
            with self._store.begin() as connection:
                held = self._checked(connection, adopting=adopting)

                def add(kind: str, dataset: str, run: str, body: dict[str, Any], key: SigningKey | None = None) -> None:
                    books = held.books
                    body = body if key is None else self._signed(books, kind, dataset, body, key)
                    # a new ledger gets its anchor first; so does the one entry that a crash may have kept from it
                    if not adopting and (held.anchor is None or held.anchor.sequence != books.sequence):
                        self._move_anchor(books)
                    entry = self._store.append(
                        connection,
                        sequence=books.sequence + 1,
                        previous=books.head,
                        kind=kind,
                        dataset=dataset,
                        run=run,
                        body=body,
                        writer=books.writer,
                    )
                    held.added.append(entry)

                held.add = add
                yield held
            for entry in held.added:
                held.books.take(entry)
                self._move_anchor(held.books)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold this site's ledger on this machine: a commit and its anchor happen as one."""
        try:
            self._state.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = (self._state / "ledger.lock").open("w")
        except OSError as error:
            raise self._unusable(error) from None
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _checked(self, connection: Connection, *, adopting: bool) -> Held:
        """Return the books up to the last entry, everything new checked."""
        books, self._books = self._books, None  # whatever fails, the next call reads everything again
        try:
            rows = self._store.rows(connection, since=books.sequence if books else 0)
            if books is not None and books.sequence:
                last, rows = rows[:1], rows[1:]
                if [(row.sequence, row.hash) for row in last] != [(books.sequence, books.head)]:
                    books = None
            if books is None:
                books, rows = self._new_books(), self._store.rows(connection, since=0)
            for entry in follow(rows, sequence=books.sequence, head=books.head):
                books.take(entry)
        except LedgerBroken as error:
            raise BudgetRefused(f"{self.site}: the ledger was changed: {error.message}", hint=error.hint) from None
        anchor = None
        with contextlib.suppress(BudgetRefused) if adopting else contextlib.nullcontext():
            anchor = read_anchor(self._anchor_path)
        misfit = self._misfit(books, anchor)
        if misfit is not None and not adopting:
            raise BudgetRefused(f"{self.site}: the ledger cannot be trusted: {misfit}", hint=_WAY_OUT)
        self._books = books
        return Held(books=books, anchor=anchor, connection=connection)

    def _misfit(self, books: Books, anchor: Anchor | None) -> str | None:
        """Return what is wrong with a whole chain, or None."""
        if books.foreign is not None:
            return (
                f"entry {books.foreign.sequence} was written by another installation ({books.foreign.writer[:8]}, this "
                f"one is {books.writer[:8]}); a ledger belongs to one state folder"
            )
        if anchor is None:
            return f"it has {books.sequence} entries, but no anchor in {self._anchor_path}" if books.sequence else None
        where = f"the anchor {self._anchor_path}"
        if anchor.sequence > books.sequence:
            return (
                f"it ends at entry {books.sequence}, {where} has seen {anchor.sequence}: a backup was restored, or "
                "entries were removed"
            )
        known = {books.sequence: books.head, books.sequence - 1: books.before}.get(anchor.sequence)
        if known is None:
            ahead = books.sequence - anchor.sequence
            return f"it is {ahead} entries ahead of {where}: the anchor was restored, or something else wrote to it"
        if known != anchor.hash or (anchor.ledger and anchor.ledger != books.ledger):
            return f"its entry {anchor.sequence} is not the one that {where} has seen: it is another ledger"
        return None

    def _move_anchor(self, books: Books) -> None:
        anchor = Anchor(ledger=books.ledger, sequence=books.sequence, hash=books.head, spent=books.everything_spent())
        try:
            write_anchor(self._anchor_path, anchor)
        except OSError as error:
            raise BudgetRefused(
                f"{self.site}: the ledger's anchor {self._anchor_path} cannot be written: {error.strerror or error}",
                hint="nothing is released without it; check the disk and the folder's rights",
                public=UNUSABLE,
            ) from None

    def _new_books(self, *, make: bool = True) -> Books:
        path = self._state / "writer.id"
        try:
            if make and not path.exists():
                write_private(path, random_seed()[:16].hex().encode())
            writer = path.read_text(encoding="ascii") if path.exists() else ""
        except OSError as error:
            raise self._unusable(error) from None
        return Books(site=self.site, writer=writer, pinned=self._officer, profile=self.profile)

    def _signed(self, books: Books, kind: str, dataset: str, body: dict[str, Any], key: SigningKey) -> dict[str, Any]:
        public = key.public.hex()
        require_profile(key.profile, self.profile, "the officer's key")
        if books.pinned and public != books.pinned:
            raise PolicyRefused(
                f"{self.site}: this key ({public[:16]}…) is not the privacy officer's ({books.pinned[:16]}…)",
                hint="name the officer's key with --key",
            )
        body = body | {"key": public}
        return body | {"signature": sign(key, signed_part(books, kind, dataset, body))}

    def _unusable(self, error: OSError) -> BudgetRefused:
        return BudgetRefused(
            f"the ledger in {self._state} cannot be used: {error.strerror or error}",
            hint="nothing is released without a ledger; check the disk and the folder's rights",
            public=UNUSABLE,
        )


def _bounds(anchored: Spent, account: Account) -> bool:
    """Tell whether a divergence bounds one of the account: of the same unit, and of no higher order."""
    return anchored.unit in ("", account.protects) and account.policy.order <= anchored.order


def check_reason(reason: str) -> None:
    """Pass if a signed change says why.

    Raises:
        InputError: it does not.
    """
    if not reason.strip():
        raise InputError("a change needs a reason", hint="say why, for whoever reads the ledger later: --reason TEXT")
