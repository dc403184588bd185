"""Where the ledger is, and the limit of populations that are not public."""

import os
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from stages.core.params import PARAMS, read_params, read_section
from stages.privacy.renyi_filter import Limit

VARIABLE = "DUALPRIV_LEDGER"
"""A path or a URL that goes before ``ledger.url``."""


@dataclass(frozen=True, kw_only=True)
class LedgerSettings:
    """Section ``ledger`` of params.yaml; no stage lists it as a DVC parameter: it changes no result."""

    url: str | None
    """A SQLAlchemy URL of SQLite or PostgreSQL, or the path of an SQLite file; null: one a user."""
    limit: Limit

    @classmethod
    def load(cls, params: Path = PARAMS) -> "LedgerSettings":
        """Read section ``ledger``."""
        return read_section(read_params(params), "ledger", cls, params)

    def location(self) -> URL:
        """Return where the ledger is, by environment, parameters and default; another database is refused.

        A relative path starts at the checkout that owns the scratch folder, so that ``dvc exp run --temp``
        finds the same ledger.
        """
        given = os.environ.get(VARIABLE) or self.url
        if given is None:
            state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
            return _file(Path(state) / "dualpriv/ledger.sqlite3")
        name = VARIABLE if os.environ.get(VARIABLE) else "ledger.url"
        if "://" not in given:
            return _file(Path(given))
        try:
            url = make_url(given)
        except ArgumentError:
            raise ValueError(f"{name} is not a URL of a database") from None
        if url.get_backend_name() == "postgresql":
            return url.set(drivername="postgresql+psycopg")
        if url.drivername != "sqlite" or not url.database or url.database.startswith((":", "file:")):
            raise ValueError(
                f"{name} names {url.render_as_string()}; the ledger speaks PostgreSQL, and SQLite in a file"
            )
        return _file(Path(url.database))


def _file(path: Path) -> URL:
    root = Path(os.environ.get("DVC_ROOT") or Path.cwd())
    return URL.create("sqlite", database=str((root / path.expanduser()).resolve()))
