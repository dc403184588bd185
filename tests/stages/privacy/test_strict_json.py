"""A file of an unknown author has one meaning or is refused, and is never a crash."""

import json

import pytest

from stages.core.canonical import canonical_json
from stages.privacy.strict_json import strict_json


def _nested(depth: int) -> object:
    return [_nested(depth - 1)] if depth else {}


REFUSED = {
    "a key twice": (b'{\n  "epsilon": 1.0,\n  "epsilon": 9.0\n}\n', "holds the key 'epsilon' twice"),
    "NaN": (b'{\n  "epsilon": NaN\n}\n', "holds NaN, which is no number"),
    "infinity": (b'{\n  "epsilon": -Infinity\n}\n', "holds -Infinity, which is no number"),
    "a float that overflows": (b'{\n  "epsilon": 1e999\n}\n', "holds a number that is too large"),
    "a huge integer": (b'{\n  "steps": ' + b"9" * 5000 + b"\n}\n", "holds an integer of 5000 digits"),
    "deep nesting": (b"[" * 100_000 + b"]" * 100_000, "is nested too deeply"),
    "nesting that a walk would stumble over": (
        canonical_json(_nested(60)),
        "is nested too deeply",
    ),
    "half a surrogate pair": (b'"\\ud800"\n', "holds text that is not Unicode"),
    "another encoding": ('"é"'.encode("latin-1"), "holds text that is not Unicode"),
    "no JSON": (b"epsilon: 1", "is not valid JSON"),
    "another spelling": (b'{"epsilon": 1.0}', "is not spelled as dualpriv spells JSON"),
    "blanks at the end": (b"1.0\n \n", "is not spelled as dualpriv spells JSON"),
    "unescaped look-alikes": ('"p\u0430tient"\n'.encode(), "is not spelled as dualpriv spells JSON"),
    "nothing": (b"", "is not valid JSON"),
}


@pytest.mark.parametrize(("content", "words"), REFUSED.values(), ids=REFUSED)
def test_what_readers_could_take_for_different_things_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(ValueError, match="^x.json ") as refusal:
        strict_json(content, "x.json")
    assert words in str(refusal.value) and len(str(refusal.value)) < 300


def test_what_our_stages_write_is_read_as_it_is() -> None:
    value = {"a": [1, 0.5, None, True, "é"], "b": {}, "steps": 10**15, "delta": 1e-5}
    assert strict_json(canonical_json(value), "x.json") == value
    assert json.loads(canonical_json(value)) == value, "negative control: any reader reads the same"
