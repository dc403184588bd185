"""How a user says that releasing a model again, and spending for it again, is meant."""

import os

NEW_RELEASE = "DUALPRIV_NEW_RELEASE"
"""``dualpriv repro --new-release`` sets this variable to 1 for the stages it runs."""


def is_new_release_meant() -> bool:
    """Tell whether the user asked for a new release."""
    return os.environ.get(NEW_RELEASE) == "1"
