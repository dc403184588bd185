"""Entries, units and secrets, none of which is ever updated or deleted."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

KEYS = {"entries": ("population", "sequence"), "units": ("digest",), "secrets": ("name",)}


def upgrade() -> None:
    """Make the tables, and the triggers that keep every row as it was written."""
    op.create_table(
        "entries",
        sa.Column("population", sa.Text, primary_key=True),
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("digest", sa.Text, nullable=False, unique=True),
        sa.Column("content", sa.Text, nullable=False),
    )
    op.create_table(
        "units",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("population", sa.Text, nullable=False),
    )
    op.create_table(
        "secrets",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("secret", sa.LargeBinary, nullable=False),
    )
    (_postgresql if op.get_bind().dialect.name == "postgresql" else _sqlite)()


def _sqlite() -> None:
    """Refuse changes; also ``INSERT OR REPLACE``, which deletes a row without asking a delete trigger."""
    for table, key in KEYS.items():
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, 'rows of {table} are never changed'); END"
            )
        same = " AND ".join(f"{column} = NEW.{column}" for column in key)
        if table == "entries":
            same = f"({same}) OR digest = NEW.digest"
        op.execute(
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "
            f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {same}) "
            f"BEGIN SELECT RAISE(ABORT, 'rows of {table} are never changed'); END"
        )


def _postgresql() -> None:
    """Refuse changes row by row, and the emptying of a table, which asks no row."""
    op.execute(
        "CREATE FUNCTION dualpriv_never_changed() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'rows of % are never changed', TG_TABLE_NAME; END $$"
    )
    for table in KEYS:
        op.execute(
            f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION dualpriv_never_changed()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION dualpriv_never_changed()"
        )
