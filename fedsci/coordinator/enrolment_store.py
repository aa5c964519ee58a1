"""The SQLite file of enrolment: tables, and transactions that other processes wait for."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedsci.errors import InputError

_WAIT_S = 20.0
_TABLES = """
CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE sites (
    number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('active', 'revoked')),
    verification_key BLOB NOT NULL UNIQUE
);
CREATE UNIQUE INDEX one_active ON sites (name) WHERE state = 'active';
CREATE TABLE certificates (
    serial TEXT PRIMARY KEY, number INTEGER NOT NULL REFERENCES sites, key BLOB NOT NULL, chain BLOB NOT NULL,
    request BLOB NOT NULL UNIQUE, until INTEGER NOT NULL, revoked INTEGER
);
CREATE TABLE tokens (
    digest BLOB PRIMARY KEY, site TEXT NOT NULL, expires INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'used', 'void'))
);
CREATE TABLE rosters (serial INTEGER PRIMARY KEY, content BLOB NOT NULL);
CREATE TABLE events (at TEXT NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL, site TEXT NOT NULL);
"""


class Store:
    """Opens the file for one step at a time.

    Args:
        path: made by :meth:`create`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def create(cls, path: Path, facts: Mapping[str, str]) -> None:
        """Make the file, readable by its owner only, with its first facts."""
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with cls(path).writing() as db:
            for statement in _TABLES.split(";"):
                db.execute(statement)
            db.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that holds the file; an error undoes it, the end makes it durable."""
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent view."""
        with self._open() as db:
            db.execute("BEGIN")
            yield db

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        if not self._path.exists():
            raise InputError(f"{self._path} is missing", hint="restore the coordinator's folder from a backup")
        with contextlib.closing(sqlite3.connect(self._path, timeout=_WAIT_S, isolation_level=None)) as db:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA synchronous = FULL")
            try:
                yield db
            except sqlite3.Error as error:
                raise InputError(
                    f"cannot use {self._path}: {error}", hint="free the disk, or restore a backup"
                ) from None


def one(db: sqlite3.Connection, query: str, *values: Any) -> sqlite3.Row | None:
    """Return the first row that a query finds, or None."""
    found: sqlite3.Row | None = db.execute(query, values).fetchone()
    return found


def fact(db: sqlite3.Connection, key: str) -> str:
    """Return one of the facts.

    Raises:
        InputError: it is not there.
    """
    row = one(db, "SELECT value FROM facts WHERE key = ?", key)
    if row is None:
        raise InputError(f"the enrolment state lacks {key}", hint="restore the coordinator's folder from a backup")
    return str(row["value"])


def set_fact(db: sqlite3.Connection, key: str, value: str) -> None:
    """Change one of the facts."""
    db.execute("UPDATE facts SET value = ? WHERE key = ?", (value, key))
