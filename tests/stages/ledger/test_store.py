"""A ledger is made safely, is its owner's only, and one that cannot be used says so in one sentence."""

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from ledgers import ADD_OR_REMOVE, PEOPLE, RULE, reservation, settlement
from postgresql import free_port

from stages.ledger.ledger import Ledger
from stages.ledger.tables import METADATA

ROOT = Path(__file__).parents[3]


def refusal(call=Ledger.load, **given) -> str:
    """Return the one sentence by which a call is refused."""
    with pytest.raises(ValueError) as refused:
        call(**given)
    said = str(refused.value)
    assert "\n" not in said and "Traceback" not in said and "sqlalche.me" not in said
    return said


def test_the_file_is_its_owners_only_in_a_folder_of_its_own(ledger_file: Path) -> None:
    os.umask(0o022)
    ledger = Ledger.load()
    ledger.register(PEOPLE, ["a"], RULE)
    reader = sqlite3.connect(ledger_file)
    reader.execute("SELECT count(*) FROM entries").fetchall()  # keeps the log beside the file
    found = sorted(ledger_file.parent.iterdir())
    assert [path.name for path in found] == [f"ledger.sqlite3{end}" for end in ("", "-shm", "-wal")]
    assert {path.stat().st_mode & 0o777 for path in found} == {0o600}
    assert ledger_file.parent.stat().st_mode & 0o777 == 0o700
    assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    reader.close()


def test_a_file_that_others_may_read_is_refused(ledger_file: Path) -> None:
    Ledger.load()
    ledger_file.chmod(0o640)
    assert "may be read by others: run `chmod 600 " in refusal()


def test_what_only_looks_makes_nothing(ledger_file: Path) -> None:
    assert "there is no ledger" in refusal(make=False)
    assert not ledger_file.parent.exists()
    ledger_file.parent.mkdir()
    os.close(os.open(ledger_file, os.O_CREAT, 0o600))
    assert "is empty: the first run of stage ingest begins it" in refusal(make=False)


@pytest.mark.parametrize("ignored", [False, True])
def test_a_file_that_git_would_take_is_refused(ignored: bool, folder: Path, monkeypatch) -> None:
    subprocess.run(["git", "init", "--quiet", "."], check=True)
    monkeypatch.setenv("DUALPRIV_LEDGER", "state/ledger.sqlite3")
    if ignored:
        (folder / ".gitignore").write_text("/state/\n")
        Ledger.load()
        assert (folder / "state/ledger.sqlite3").exists()
    else:
        assert "lies in a Git repository, which would take its keys along" in refusal()
        assert not (folder / "state").exists()


def test_the_tables_are_those_that_the_code_reads(place: str) -> None:
    Ledger.load()
    url = place.replace("postgresql:", "postgresql+psycopg:") if "://" in place else f"sqlite:///{place}"
    with sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


@pytest.mark.parametrize("content", [b"not a database, and long enough to be read as one" * 9, b"\0" * 4096])
def test_a_file_that_is_no_database_is_refused_and_kept(content: bytes, ledger_file: Path) -> None:
    ledger_file.parent.mkdir()
    ledger_file.write_bytes(content)
    ledger_file.chmod(0o600)
    assert "is damaged (file is not a database): restore it from your backup" in refusal()
    assert ledger_file.read_bytes() == content


@pytest.mark.parametrize("table", ["entries", "units", "secrets"])
def test_a_table_whose_pages_are_damaged_is_refused(table: str, ledger_file: Path) -> None:
    ledger = Ledger.load()
    ledger.register(PEOPLE, [f"{number}" for number in range(500)], RULE)
    with sqlite3.connect(ledger_file) as raw:
        pages = [
            page for (page,) in raw.execute("SELECT rootpage FROM sqlite_master WHERE tbl_name = ?", [table])
        ]
    raw.close()
    content = bytearray(ledger_file.read_bytes())
    for page in filter(None, pages):  # of the table and of its index; a trigger has none
        content[4096 * (page - 1) : 4096 * page] = b"\xa5" * 4096
    ledger_file.write_bytes(content)
    assert "is damaged (database disk image is malformed): restore it from your backup" in refusal(
        lambda: ledger.register(PEOPLE, ["0", "600"], RULE)
    )


def test_a_database_of_something_else_is_refused(place: str) -> None:
    url = place.replace("postgresql:", "postgresql+psycopg:") if "://" in place else f"sqlite:///{place}"
    if "://" not in place:
        Path(place).parent.mkdir()
        os.close(os.open(place, os.O_CREAT, 0o600))
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE mine (x INTEGER)")
    assert "holds tables of something else" in refusal()
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('4711')")
    assert "was written by another version of dualpriv (form 4711 of its tables)" in refusal()


def test_an_unreachable_server_is_one_sentence_without_its_password(monkeypatch) -> None:
    monkeypatch.setenv("DUALPRIV_LEDGER", f"postgresql://me:geheim@127.0.0.1:{free_port()}/ledger")
    said = refusal()
    assert "postgresql+psycopg://me:***@127.0.0.1" in said and "cannot be reached" in said
    assert "geheim" not in said


@pytest.mark.slow
def test_a_wrong_password_is_one_sentence_without_it(postgresql, monkeypatch) -> None:
    monkeypatch.setenv("DUALPRIV_LEDGER", postgresql.url().replace(postgresql.password, "geheim"))
    assert "geheim" not in refusal()


def test_a_folder_that_cannot_be_made_is_one_sentence(folder: Path, monkeypatch) -> None:
    (folder / "file").touch()
    monkeypatch.setenv("DUALPRIV_LEDGER", str(folder / "file/ledger.sqlite3"))
    assert "cannot be opened: Not a directory" in refusal()


def test_another_process_that_holds_it_is_waited_for_and_then_named(ledger_file: Path, monkeypatch) -> None:
    ledger = Ledger.load()
    monkeypatch.setattr("stages.ledger.store.PATIENCE", 1)
    impatient = Ledger.load()
    holder = sqlite3.connect(ledger_file, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    said = refusal(lambda: impatient.register(PEOPLE, ["a"], RULE))
    assert "another process holds the ledger" in said
    assert ledger.entries(PEOPLE.name) == [], "readers do not wait"
    holder.execute("ROLLBACK")
    holder.close()
    impatient.register(PEOPLE, ["a"], RULE)


SCRIPT = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
from pathlib import Path
from ledgers import *
from stages.ledger.ledger import Ledger

def reserve(number):
    try:
        print(Ledger.load().reserve(PEOPLE, ADD_OR_REMOVE, reservation(number)).sequence)
    except ValueError as error:
        print(error)

def fill(folder):
    with open(folder / "filler", "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass

{acts}
"""


def mounted(folder: Path, mount: str, acts: str) -> list[str]:
    """Mount something, act in Python, and return what was printed; skip the test where none may mount."""
    script = SCRIPT.format(root=str(ROOT), tests=str(ROOT / "tests"), acts=acts)
    command = ["sh", "-c", f'{mount} || exit 77; exec {sys.executable} -c "$0"', script]
    try:
        done = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", *command],
            capture_output=True,
            text=True,
            timeout=100,
        )
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if done.returncode == 77 or done.stderr.startswith("unshare:"):
        pytest.skip(f"this user cannot mount: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_disk_that_is_full_is_one_sentence_and_changes_nothing(folder: Path, ledger_file: Path) -> None:
    place = ledger_file.parent
    place.mkdir()
    before, after = "reserve(1); fill(place); reserve(2)", "(place / 'filler').unlink(); reserve(2)"
    acts = f"place = Path({str(place)!r}); {before}; {after}"
    printed = mounted(folder, f"mount -t tmpfs -o size=256k none {place}", acts)
    full = f"no space left on disk ({ledger_file}): free some and run it again"
    assert printed == ["2", full, "3"], "the second entry is the first reservation, and the third the next"


@pytest.mark.slow
def test_a_disk_that_is_full_from_the_start_is_one_sentence(folder: Path, ledger_file: Path) -> None:
    place = ledger_file.parent
    place.mkdir()
    acts = f"place = Path({str(place)!r}); fill(place); reserve(1); (place / 'filler').unlink(); reserve(1)"
    printed = mounted(folder, f"mount -t tmpfs -o size=256k none {place}", acts)
    assert printed == [f"no space left on disk ({ledger_file}): free some and run it again", "2"]


@pytest.mark.slow
def test_a_read_only_file_system_is_one_sentence(folder: Path, ledger_file: Path) -> None:
    Ledger.load()
    place = ledger_file.parent
    mount = f"mount --bind {place} {place} && mount -o remount,ro,bind {place}"
    printed = mounted(folder, mount, "reserve(1)")
    assert printed == [f"the ledger {ledger_file} cannot be opened: Read-only file system"]


def test_a_read_only_database_is_one_sentence(ledger_file: Path) -> None:
    ledger = Ledger.load()

    @sqlalchemy.event.listens_for(ledger._store._engine, "connect")
    def read_only(connection, record) -> None:
        connection.execute("PRAGMA query_only=ON")

    said = refusal(lambda: ledger.register(PEOPLE, ["a"], RULE))
    assert said == f"the ledger {ledger_file} is read-only: make it writable, for releases are recorded there"


@pytest.mark.slow
def test_a_read_only_server_is_one_sentence(postgresql, monkeypatch) -> None:
    monkeypatch.setenv("DUALPRIV_LEDGER", postgresql.new_place(default_transaction_read_only="on"))
    assert "is read-only: make it writable" in refusal()


@pytest.mark.slow
def test_a_server_that_goes_away_is_waited_for_by_who_has_reached_it(postgresql, monkeypatch, capsys) -> None:
    monkeypatch.setenv("DUALPRIV_LEDGER", postgresql.new_place())
    monkeypatch.setattr("stages.ledger.store._PAUSE", 0.1)
    ledger = Ledger.load()
    ledger.reserve(PEOPLE, ADD_OR_REMOVE, reservation(1))
    postgresql.stop()
    try:
        assert "cannot be reached" in refusal(), "a process that never reached it is told at once"
        later = threading.Timer(2.0, postgresql.start)
        later.start()
        ledger.settle(PEOPLE.name, settlement(1))
        assert capsys.readouterr().out.count("is away: waiting for it") == 1
        later.join()
        assert [entry.kind for entry in Ledger.load().entries(PEOPLE.name)] == ["open", "reserve", "settle"]
        postgresql.stop()
        monkeypatch.setattr("stages.ledger.store.OUTAGE", 0.5)
        with pytest.raises(ValueError, match="cannot be reached"):
            ledger.entries(PEOPLE.name)
    finally:
        postgresql.stop()
        postgresql.start()
