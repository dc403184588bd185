"""Names of artifacts in evidence: plain relative paths, for who wrote them may wish to reach elsewhere."""

import re

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=@-]*", re.ASCII)


def is_plain(name: object) -> bool:
    r"""Tell whether ``name`` is a relative path of plain words: nothing hidden, no way up, one spelling.

    >>> is_plain("models/adapter/adapter_model.safetensors")
    True
    >>> [is_plain(name) for name in ("../a", "/a", "a//b", "a/./b", "a\nb", "-a", "")]
    [False, False, False, False, False, False, False]
    """
    return isinstance(name, str) and all(_PART.fullmatch(part) for part in name.split("/"))


def is_digest(text: object) -> bool:
    """Tell whether ``text`` is a SHA-256 in lower-case hex."""
    return isinstance(text, str) and re.fullmatch("[0-9a-f]{64}", text, re.ASCII) is not None
