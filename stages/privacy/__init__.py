"""The differential-privacy engine: pure functions, each of which states its guarantee."""
