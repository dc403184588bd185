"""A library of the small checkout."""
