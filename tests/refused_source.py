"""What a test of sources asserts about a refusal."""

import pytest

from stages.records.source import Source, read_source

FORMATS = ["messages", "llava", "openai"]


def assert_one_sentence(message: str) -> None:
    assert "\n" not in message
    assert ". " not in message.replace("...", "")


def assert_refused(source: Source, *fragments: str) -> None:
    """Assert that reading names the second record and the reason, and touches nothing."""
    before = sorted((path, path.stat().st_mtime_ns) for path in source.path.parent.rglob("*"))
    with pytest.raises(ValueError) as refusal:
        read_source(source)
    message = str(refusal.value)
    assert message.startswith(f"{source.path}: 1 record cannot be used: record 'a2': ")
    for fragment in fragments:
        assert fragment in message
    assert_one_sentence(message)
    assert sorted((path, path.stat().st_mtime_ns) for path in source.path.parent.rglob("*")) == before
