"""The database of the ledger: opened safely, written by one process at a time, refused in one sentence.

SQLite (the default) keeps a write-ahead log, so its file belongs on a disk of this machine; several machines
share PostgreSQL. Whoever can write the database can also drop it: the copies of the chains in Git notice.
"""

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from stages.core.scratch import private_folder
from stages.ledger.schema import is_current, migrate

PATIENCE = 120
"""Seconds that a process waits for another to finish its entry."""
OUTAGE = 600
"""Seconds for which a server that answered before is waited for; a run that has trained is not given up."""
_PAUSE = 2.0
_LOCK = 0x6475616C70726976
"""The advisory lock of PostgreSQL that writers of a ledger take: 'dualpriv'."""
_FULL = "no space left on disk ({place}): free some and run it again"
_READ_ONLY = "the ledger {place} is read-only: make it writable, for releases are recorded there"
_HELD = "another process holds the ledger {place} for over {patience} s: wait for it"
_DAMAGED = "the ledger {place} is damaged ({said}): restore it from your backup"
_BROKEN = "the ledger {place} cannot be read or written ({said}): check its disk"
_UNKNOWN = "the ledger {place} cannot be used: {said}"
_SPACE = 2**20
"""Bytes with which a disk is as good as full."""
_CAUSES = {
    "database or disk is full": _FULL,
    "No space left on device": _FULL,
    "readonly database": _READ_ONLY,
    "read-only transaction": _READ_ONLY,
    "database is locked": _HELD,
    "lock timeout": _HELD,
    "is not a database": _DAMAGED,
    "malformed": _DAMAGED,
    "disk I/O error": _BROKEN,
    "connection": "the ledger {place} cannot be reached: {said}",
}
"""What SQLite and PostgreSQL say, and what we do; {said} is their first line."""


class Store:
    """One ledger's database."""

    def __init__(self, url: URL) -> None:
        """Name the database; nothing is opened yet."""
        self._url = url
        self.place = str(url.database) if self._is_file else url.render_as_string(hide_password=True)
        self._engine = _engine(url)
        self._was_reached = False

    @property
    def _is_file(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    def open(self, *, make: bool) -> None:
        """Make sure that the tables are there, and make them where ``make`` allows.

        Guarantee: processes that open a new ledger at once make its tables once; one killed while it makes
        them leaves none or all. An SQLite file is its owner's only (0600, in a 0700 folder made on the way)
        and never one that Git would take.
        """
        if self._is_file:
            self._check_file(make)
        with self.reading() as connection:
            if is_current(connection, self.place):
                return
        if not make:
            raise ValueError(f"the ledger {self.place} is empty: the first run of stage ingest begins it")
        with self._alone():
            if self._is_file:
                self._use_write_ahead_log()
            with self.writing() as connection:
                if not is_current(connection, self.place):
                    migrate(connection)

    def _check_file(self, make: bool) -> None:
        path = Path(self.place)
        if not path.exists() and not make:
            raise ValueError(f"there is no ledger {path}: the first run of stage ingest begins it")
        _refuse_git(path)
        try:
            private_folder(path.parent)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600) if make else os.open(path, os.O_RDONLY))
        except OSError as error:
            raise ValueError(f"the ledger {path} cannot be opened: {error.strerror}") from None
        if path.stat().st_mode & 0o077:
            raise ValueError(f"the ledger {path} may be read by others: run `chmod 600 {path}`")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes of this machine from making the same file; PostgreSQL locks by itself."""
        if not self._is_file:
            yield
            return
        handle = os.open(Path(self.place).parent, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _use_write_ahead_log(self) -> None:
        with self._clear(), self._engine.connect().execution_options(begin=None) as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")  # not inside a transaction

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection that sees one state of the ledger."""
        with self._clear(), self._connected().execution_options(begin="BEGIN") as connection:
            with connection.begin():
                yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield a connection in a transaction of its own, one process at a time.

        Guarantee: when the block ends well, everything it wrote is on disk; otherwise, whatever ended it,
        nothing is.
        """
        with self._clear(), self._connected() as connection, connection.begin():
            if not self._is_file:
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{PATIENCE}s'")
                connection.exec_driver_sql("SET LOCAL synchronous_commit = on")
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            yield connection

    def _connected(self) -> Connection:
        """Return a connection; a server that this process has reached before may be away for a while."""
        give_up = time.monotonic() + (OUTAGE if self._was_reached and not self._is_file else 0)
        is_told = False
        while True:
            try:
                found = self._engine.connect()
            except OperationalError:
                if time.monotonic() > give_up:
                    raise
                if not is_told:
                    print(f"the ledger {self.place} is away: waiting for it for {OUTAGE} s", flush=True)
                is_told = True
                time.sleep(_PAUSE)
            else:
                self._was_reached = True
                return found

    @contextmanager
    def _clear(self) -> Iterator[None]:
        """Say what a database refused in one sentence."""
        try:
            yield
        except DBAPIError as error:
            said = str(error.orig).strip().partition("\n")[0]
            form = next((form for cause, form in _CAUSES.items() if cause in said), _UNKNOWN)
            if form == _BROKEN and shutil.disk_usage(Path(self.place).parent).free < _SPACE:
                form = _FULL  # SQLite could not make the index of its log
            raise ValueError(form.format(place=self.place, said=said, patience=PATIENCE)) from None


def _engine(url: URL) -> Engine:
    """Return an engine that keeps no connection open, so that a fork or a kill finds none."""
    if url.get_backend_name() != "sqlite":
        return create_engine(
            url,
            poolclass=NullPool,
            isolation_level="READ COMMITTED",  # after the lock, a statement sees what was committed before it
            connect_args={"connect_timeout": 10, "application_name": "dualpriv"},
        )
    engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": PATIENCE})

    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say, not where the driver thinks

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA synchronous=FULL")
        begin = connection.get_execution_options().get("begin", "BEGIN IMMEDIATE")
        if begin is not None:
            connection.exec_driver_sql(begin)

    return engine


def _refuse_git(path: Path) -> None:
    """Refuse a file that Git would take: it holds keys."""
    repository = next((folder for folder in path.parents if (folder / ".git").exists()), None)
    if repository is None:
        return
    ignored = subprocess.run(  # from its root: a folder in between may be a file system of its own
        ["git", "-C", str(repository), "check-ignore", "--quiet", str(path)], capture_output=True
    )
    if ignored.returncode != 0:
        raise ValueError(
            f"the ledger {path} lies in a Git repository, which would take its keys along: name another "
            "place in DUALPRIV_LEDGER or ledger.url"
        )
