"""Alembic runs this file to migrate the ledger, over the connection that stages/ledger/schema.py gives."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
