"""Where the ledger is: the environment, then params.yaml, then a file one a user."""

from pathlib import Path

import pytest

from stages.ledger.settings import LedgerSettings
from stages.privacy.renyi_filter import Limit

LIMIT = Limit(epsilon=12.0, delta=1e-5)


def location(url: str | None) -> str:
    found = LedgerSettings(url=url, limit=LIMIT).location()
    return str(found.database) if found.drivername == "sqlite" else found.render_as_string()


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment name no ledger."""
    monkeypatch.delenv("DUALPRIV_LEDGER")


def test_the_section_is_read_with_its_limit() -> None:
    assert LedgerSettings.load() == LedgerSettings(url=None, limit=LIMIT)


def test_left_out_it_is_one_file_a_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert location(None) == f"{tmp_path}/home/.local/state/dualpriv/ledger.sqlite3"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert location(None) == f"{tmp_path}/state/dualpriv/ledger.sqlite3"


def test_the_environment_goes_before_params(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DUALPRIV_LEDGER", str(tmp_path / "mine"))
    assert location("/other") == f"{tmp_path}/mine"


@pytest.mark.parametrize("given", ["a/b.db", "sqlite:///a/b.db"])
def test_a_relative_path_starts_at_the_checkout_that_owns_the_scratch_folder(
    given: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert location(given) == f"{tmp_path}/a/b.db"
    monkeypatch.setenv("DVC_ROOT", "/checkout")
    assert location(given) == "/checkout/a/b.db"
    assert location("/absolute.db") == "/absolute.db"
    monkeypatch.setenv("HOME", "/home/someone")
    assert location("~/b.db") == "/home/someone/b.db"


@pytest.mark.parametrize("url", ["postgresql://me:secret@host/db", "postgresql+psycopg2://me:secret@host/db"])
def test_postgresql_is_spoken_by_one_driver_and_shows_no_password(url: str) -> None:
    assert location(url) == "postgresql+psycopg://me:***@host/db"


@pytest.mark.parametrize(
    "url",
    ["mysql://me:secret@host/db", "sqlite://", "sqlite:///:memory:", "sqlite:///file:x?uri=true", "://"],
)
def test_another_database_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="^ledger.url ") as refused:
        location(url)
    assert "secret" not in str(refused.value)


def test_a_broken_section_is_named() -> None:
    mistyped = "{url: 7, limit: {epsilon: 1.0, delta: 0.1}}"
    for text, said in (("{}", "lacks keys"), (mistyped, "of type"), ("", "mapping")):
        Path("params.yaml").write_text(f"ledger: {text}\n")
        with pytest.raises((KeyError, TypeError), match=f"section 'ledger'.*{said}"):
            LedgerSettings.load()
