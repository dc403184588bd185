"""Utility of a model on held-out records, and how its figures may leave."""
