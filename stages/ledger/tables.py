"""The tables of the ledger, as the code reads and writes them; stages/ledger/migrations makes them."""

from sqlalchemy import Column, Integer, LargeBinary, MetaData, Table, Text

METADATA = MetaData()

ENTRIES = Table(
    "entries",
    METADATA,
    Column("population", Text, primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("digest", Text, nullable=False, unique=True),
    Column("content", Text, nullable=False),
)
"""The hash chains: ``digest`` is the SHA-256 of ``content``, canonical JSON."""

UNITS = Table(
    "units",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),
    Column("population", Text, nullable=False),
)
"""Keyed digests of the ids of units; never exported."""

SECRETS = Table(
    "secrets",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("secret", LargeBinary, nullable=False),
)
"""The keys of populations and of the digests of units; never exported."""
