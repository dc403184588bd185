"""Add one."""


def increment(value: int) -> int:
    """Return the next whole number."""
    return value + 1
