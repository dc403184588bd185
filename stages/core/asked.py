"""The program ``python -m stages.core.asked NAME``: what that stage would spend if it ran now.

Prints one JSON value: null where the stage spends nothing, or goes on with what it has reserved already.
"""

import importlib
import json
import sys
from dataclasses import asdict

from stages.core.contract import Stage
from stages.core.entry import is_ours, quiet_accountants, refuse


def main() -> None:
    """Ask the stage that is named."""
    name = sys.argv[1]
    quiet_accountants()
    module = importlib.import_module(f"stages.{name}")
    [stage] = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Stage) and value.__module__ == module.__name__
    ]
    try:
        spending = stage.load().spending()
    except (ValueError, KeyError, TypeError) as error:
        if not is_ours(error):
            raise
        refuse(f"stages.{name}", error)
    print(json.dumps(None if spending is None else asdict(spending)))


if __name__ == "__main__":
    main()
