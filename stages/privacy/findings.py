"""What an audit finds: one thing that does not hold, where, and how bad that is."""

import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

Severity = Literal["error", "warning"]
_MOST, _LONGEST = 30, 600
_SHORT = reprlib.Repr()
_SHORT.maxdict = _SHORT.maxlist = 12
_SHORT.maxstring = _SHORT.maxother = 200


@dataclass(frozen=True)
class Finding:
    """One thing that does not hold, and the file it was found in.

    An error contradicts the evidence; a warning is what a reader has to know and no contradiction.
    """

    file: str
    problem: str
    severity: Severity = "error"
    revision: str | None = None
    """The commit that holds the file; None for the evidence that was asked about."""


def in_brief(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings of which each is short and no file has many: how many there are a forger chooses."""
    found, counts = list[Finding](), Counter[tuple[str, Severity, str | None]]()
    for finding in findings:
        key = (finding.file, finding.severity, finding.revision)
        counts[key] += 1
        if counts[key] <= _MOST:
            text = finding.problem
            found.append(replace(finding, problem=text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."))
    more = [(key, count - _MOST) for key, count in counts.items() if count > _MOST]
    return found + [
        Finding(file, f"has {count} more findings", severity, revision)
        for (file, severity, revision), count in more
    ]


def is_sound(findings: list[Finding]) -> bool:
    """Tell whether nothing contradicts the evidence."""
    return not any(finding.severity == "error" for finding in findings)


def shown(value: Any) -> str:
    r"""Return a value from a file of an unknown author, quoted so that nothing in it hides or looks alike.

    >>> print(shown("p\u0430tients\x1b[2K"))
    'p\u0430tients\x1b[2K'
    """
    return _SHORT.repr(value).encode("ascii", "backslashreplace").decode()


def differences(file: str, expected: Any, found: Any, where: str = "") -> Iterator[Finding]:
    """Compare a rebuilt document with the stored one, value by value; each difference is an error.

    Numbers of floating point are equal within 1e-9 of their size: another machine rounds differently.
    """
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(set(expected) | set(found)):
            inner = f"{where}.{key}" if where else str(key)
            if key not in found:
                yield Finding(file, f"lacks {shown(inner)}; the evidence gives {shown(expected[key])}")
            elif key not in expected:
                yield Finding(file, f"holds {shown(inner)}, which the evidence does not give")
            else:
                yield from differences(file, expected[key], found[key], inner)
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, pair in enumerate(zip(expected, found, strict=True)):
            yield from differences(file, *pair, f"{where}[{index}]")
    elif not _equal(expected, found):
        yield Finding(file, f"{where} is {shown(found)}; the evidence gives {shown(expected)}")


def _equal(expected: Any, found: Any) -> bool:
    if isinstance(expected, bool) or isinstance(found, bool):
        return expected is found
    if isinstance(expected, float) and isinstance(found, int | float):
        return abs(expected - found) <= 1e-9 * abs(expected)
    return bool(type(expected) is type(found) and expected == found)
