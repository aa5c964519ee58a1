"""Where a ledger's entries lie, each chained to the one before: SQLite in the state folder, or a site's PostgreSQL.

SQLite runs in WAL mode with synchronous=FULL; PostgreSQL with synchronous_commit on and one writer at a time (an
advisory lock), and a server that runs without fsync is refused. One table serves all sites of a server; every
row names its site, and a site's rows are a chain of their own.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from fedsci import names
from fedsci.errors import BudgetRefused, ConfigError, VerificationFailed

_metadata = MetaData()
_entries = Table(
    "entries",
    _metadata,
    Column("site", String, primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("time", Float, nullable=False),
    Column("kind", String, nullable=False),
    Column("dataset", String, nullable=False),
    Column("run", String, nullable=False),
    Column("body", String, nullable=False),
    Column("writer", String, nullable=False),
    Column("previous", String, nullable=False),
    Column("hash", String, nullable=False),
)
_HASHED = ("site", "sequence", "time", "kind", "dataset", "run", "body", "writer", "previous")
GENESIS = "sha256:" + "0" * 64
_CREATING = 0x66656473  # advisory lock for making the table


#: What others learn of a ledger that cannot be written.
UNUSABLE = "the site's ledger cannot be used, so nothing is released"


class LedgerBroken(VerificationFailed):
    """An entry does not stand up.

    Attributes:
        sequence: the first such entry.
        field: what in it is wrong.
    """

    def __init__(self, sequence: int, field: str, problem: str) -> None:
        super().__init__(
            f"entry {sequence}: {field}: {problem}",
            hint="put the newest good copy of the ledger back; if there is none, move this one away, and the privacy "
            "officer goes on from what the anchor knows: fedsci privacy ledger SITE --adopt --reason TEXT",
        )
        self.sequence, self.field = sequence, field


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the ledger.

    Attributes:
        sequence: 1, 2, 3, ...
        time: when, in seconds since 1970.
        kind: ``register``, ``data``, ``reserve``, ``step``, ``measure``, ``settle``,
            ``no_privacy``, ``set`` or ``adopt``.
        dataset, run: what it is about; may be empty.
        body: JSON-ready details.
        writer: the installation that wrote it.
        previous, hash: the chain.
    """

    sequence: int
    time: float
    kind: str
    dataset: str
    run: str
    body: dict[str, Any]
    writer: str
    previous: str
    hash: str


class Store:
    """The entries of one site.

    Args:
        url: as :func:`read_url` returns it; its password is never shown.
        site: whose entries.
    """

    def __init__(self, url: URL, *, site: str) -> None:
        self._site = site
        self._url = url
        self._secrets = [str(self._url.password)] if self._url.password else []
        self.postgres = self._url.get_backend_name() == "postgresql"
        self.file = None if self.postgres else Path(str(self._url.database))
        self.name = self._url.set(query={}).render_as_string() if self.file is None else str(self.file)
        self._engine: Engine | None = None

    def exists(self) -> bool:
        """Return whether there may be entries; looking makes no file."""
        return self.file is None or self.file.exists()

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Hold the site's entries for one durable transaction.

        Raises:
            BudgetRefused: the store cannot be used; the message holds no password.
        """
        try:
            if self._engine is None:
                self._engine = self._open()
            with self._engine.begin() as connection:
                if self.postgres:
                    self._hold(connection)
                yield connection
        except (SQLAlchemyError, OSError) as error:
            cause = " ".join(str(getattr(error, "orig", None) or error.__cause__ or error).split())
            for secret in self._secrets:
                cause = cause.replace(secret, "***")
            raise BudgetRefused(
                f"the ledger {self.name} cannot be used: {cause[:300]}",
                hint="nothing is released without a ledger; check the server and the key ledger in the site file"
                if self.postgres
                else "nothing is released without a ledger; check the disk and the file's rights",
                public=UNUSABLE,
            ) from None

    def rows(self, connection: Connection, *, since: int) -> list[Any]:
        """Return the raw rows from number ``since`` on, oldest first."""
        mine = (_entries.c.site == self._site) & (_entries.c.sequence >= since)
        return list(connection.execute(select(_entries).where(mine).order_by(_entries.c.sequence)))

    def number_of(self, connection: Connection, digest: str) -> int | None:
        """Return the number of the entry with this hash, or None."""
        mine = (_entries.c.site == self._site) & (_entries.c.hash == digest)
        return connection.execute(select(_entries.c.sequence).where(mine)).scalar()

    def append(
        self, connection: Connection, *, sequence: int, previous: str, kind: str, dataset: str, run: str,
        body: dict[str, Any], writer: str,
    ) -> Entry:  # fmt: skip
        """Add an entry behind the one whose hash is ``previous``; durable once the transaction ends."""
        values: dict[str, Any] = {
            "site": self._site, "sequence": sequence, "time": time.time(), "kind": kind, "dataset": dataset,
            "run": run, "body": json.dumps(body, sort_keys=True, allow_nan=False), "writer": writer,
            "previous": previous,
        }  # fmt: skip
        values["hash"] = _hash_of(values)
        connection.execute(_entries.insert().values(**values))
        return Entry(**{name: value for name, value in values.items() if name not in ("site", "body")}, body=body)

    def close(self) -> None:
        """Let go of the database."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _open(self) -> Engine:
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            engine = create_engine(self._url, poolclass=NullPool, connect_args={"timeout": 30})
            event.listen(engine, "connect", _durable)
            event.listen(engine, "begin", _take_write_lock)
        else:
            try:
                engine = create_engine(self._url, pool_size=1, max_overflow=0, pool_pre_ping=True)
            except ImportError:
                raise BudgetRefused(
                    f"the ledger {self.name} cannot be used: psycopg is not installed",
                    hint="pip install 'fedsci[postgres]'",
                ) from None
        try:
            self._make_table(engine)
        except BaseException:
            engine.dispose()
            raise
        if self.file is not None:
            self.file.chmod(0o600)
        return engine

    def _make_table(self, engine: Engine) -> None:
        with engine.begin() as connection:
            if self.postgres:
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_CREATING})"))
                if connection.execute(text("SHOW fsync")).scalar_one() != "on":
                    raise BudgetRefused(
                        f"the ledger {self.name} cannot be used: the server runs with fsync off",
                        hint="a charge must be on disk before data is touched: set fsync = on",
                    )
            if inspect(connection).has_table(_entries.name):
                held = {column["name"] for column in inspect(connection).get_columns(_entries.name)}
                if held != set(_entries.c.keys()):
                    raise BudgetRefused(
                        f"the ledger {self.name} cannot be used: it was written by another version of fedsci",
                        hint="go on with that version; its charges are not known to this one",
                    )
            _metadata.create_all(connection)

    def _hold(self, connection: Connection) -> None:
        """One writer a site, and a commit that is on disk when it returns."""
        number = int.from_bytes(sha256(b"fedsci ledger " + self._site.encode()).digest()[:8], "big", signed=True)
        connection.execute(text("SET LOCAL lock_timeout = '30s'"))
        connection.execute(text(f"SELECT pg_advisory_xact_lock({number})"))
        connection.execute(text("SET LOCAL synchronous_commit = on"))


def follow(rows: list[Any], *, sequence: int, head: str) -> Iterator[Entry]:
    """Yield the rows as entries, each checked to follow from the one before.

    Raises:
        LedgerBroken: names the first row that does not, and the field.
    """
    for row in rows:
        sequence += 1
        if row.sequence != sequence:
            raise LedgerBroken(sequence, "sequence", f"it is missing, entry {row.sequence} comes next")
        if row.previous != head:
            raise LedgerBroken(sequence, "previous", "it does not follow from the entry before")
        if row.hash != _hash_of({name: getattr(row, name) for name in _HASHED}):
            raise LedgerBroken(sequence, "hash", "the entry was changed after it was written")
        head = row.hash
        yield entry_of(row)


def entry_of(row: Any) -> Entry:
    """Return a row as an entry, unchecked."""
    values = {name: getattr(row, name) for name in (*_HASHED[1:], "hash")}
    try:
        values["body"] = json.loads(row.body)
    except (ValueError, RecursionError):
        raise LedgerBroken(row.sequence, "body", "it is not JSON") from None
    return Entry(**values)


def read_url(url: str) -> URL:
    """Return a ledger's URL.

    Raises:
        ConfigError: it is none, or of a kind that is not known to keep what it commits; it is not repeated.
    """
    right = "use postgresql+psycopg://user@host/database, or leave it out for SQLite in the state folder"
    try:
        read = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError("the site file's key ledger is not a database URL", hint=right) from None
    if read.drivername not in ("sqlite", "postgresql+psycopg"):
        raise ConfigError(f"a ledger cannot be kept in {read.drivername!r}", hint=right)
    if read.drivername == "sqlite" and (read.database or ":memory:") == ":memory:":
        raise ConfigError("a ledger in memory is no ledger", hint=right)
    if "password" in read.query:
        raise ConfigError(
            "the site file's key ledger has a password among its options",
            hint="write it as user:password@host, or use a .pgpass file",
        )
    return read


def _durable(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # we begin transactions ourselves
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _take_write_lock(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _hash_of(values: dict[str, Any]) -> str:
    return names.digest(json.dumps(values, sort_keys=True).encode())
