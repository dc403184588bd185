"""Public randomness: initialisation and the order of public records. Never sampling, never noise."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Seed:
    """Section ``seed`` of params.yaml. In the open; whoever reads it learns nothing about the noise."""

    public: int
