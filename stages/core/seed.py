"""Public randomness: public records in some order, and where training starts. Never sampling, never noise."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Seed:
    """Section ``seed`` of params.yaml. In the open; whoever reads it learns nothing about the noise."""

    public: int
    """Which public records are looked at, and in which order."""
    start: int
    """Where adapters start, and which public directions and random updates training takes."""
