"""Bring the tables of the ledger to the form that this code reads, with Alembic."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

MIGRATIONS = Path(__file__).with_name("migrations")


def is_current(connection: Connection, place: str) -> bool:
    """Tell whether the tables have the form that this code reads; a database of other things is refused."""
    tables = inspect(connection).get_table_names()  # asked first: another process may make them meanwhile
    if not tables:
        return False
    found = MigrationContext.configure(connection).get_current_heads()
    if not found:
        raise ValueError(
            f"the database {place} holds tables of something else: name an empty one for the ledger"
        )
    scripts = ScriptDirectory.from_config(_config())
    known = {script.revision for script in scripts.walk_revisions()}
    if not set(found) <= known:
        raise ValueError(
            f"the ledger {place} was written by another version of dualpriv (form {found[0]} of its tables): "
            "use that version"
        )
    return found == tuple(scripts.get_heads())


def migrate(connection: Connection) -> None:
    """Bring the tables to the newest form, inside the transaction of ``connection``."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
