"""Contracts, parameters and files: what every stage shares. Knows nothing of machine learning."""
