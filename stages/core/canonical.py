"""The one spelling of a JSON value that our files and digests use."""

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> bytes:
    r"""Return the one spelling of a JSON value that our files and digests use.

    >>> canonical_json({"b": 1, "a": [0.5]})
    b'{\n  "a": [\n    0.5\n  ],\n  "b": 1\n}\n'
    """
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def canonical_digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value, in its one spelling, in hex.

    >>> canonical_digest({"a": 1, "b": 2}) == canonical_digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(canonical_json(value)).hexdigest()
