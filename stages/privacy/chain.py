"""The entries of a population's ledger: one hash chain, in the form that is stored and exported."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from stages.core.canonical import canonical_json
from stages.core.schema import parse
from stages.privacy.accountants import Relation
from stages.privacy.approval import Approval
from stages.privacy.renyi_filter import RenyiFilter

VERSION = 1
START = "0" * 64
"""What the first entry has in the place of the digest before it."""
Kind = Literal["split", "open", "reserve", "settle", "abandon"]
Split = Literal["train", "heldout"]
Sampler = Literal["poisson", "none"]


@dataclass(frozen=True, kw_only=True)
class SplitBody:
    """A rule that assigns units to splits came into use."""

    rule: str

    def __post_init__(self) -> None:
        """Refuse no rule."""
        if not self.rule.strip():
            raise ValueError("a rule that assigns units to splits must say so in words")


@dataclass(frozen=True, kw_only=True)
class OpenBody:
    """The constants of the population, and its filter; a public population has none."""

    public: bool
    unit: str
    relation: Relation
    max_units: int
    limit: RenyiFilter | None

    def __post_init__(self) -> None:
        """Refuse a population that is not public without a limit, and the reverse."""
        if self.public != (self.limit is None):
            raise ValueError("a population has a limit exactly where it is not public")


@dataclass(frozen=True, kw_only=True)
class ReserveBody:
    """A release was about to read its first private record; ``event`` is the most that it may spend."""

    release: str
    stage: str
    split: Split
    sampler: Sampler
    event: dict[str, Any]
    cost: float | None
    approval: Approval | None = None
    """Who was asked before and said yes; in the stored form only where somebody was."""

    def __post_init__(self) -> None:
        """Refuse names that no release and no stage has."""
        if not re.fullmatch(r"[0-9a-f]{32}", self.release):
            raise ValueError(f"a release is named by 32 hex digits, got {self.release!r}")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.stage):
            raise ValueError(f"a stage has the name of a module, got {self.stage!r}")


@dataclass(frozen=True, kw_only=True)
class SettleBody:
    """A release was published; ``event`` is what was executed."""

    release: str
    event: dict[str, Any]
    cost: float | None
    released: dict[str, Any]
    code: str
    commit: str
    versions: dict[str, Any]

    def __post_init__(self) -> None:
        """Refuse anything but file names with their SHA-256 and libraries with their versions."""
        digests, numbers = self.released.items(), self.versions.items()
        if not all(isinstance(file, str) and _is_sha256(digest) for file, digest in digests):
            raise ValueError(f"what a release published is named by SHA-256, got {self.released!r}")
        if not all(isinstance(text, str) for pair in numbers for text in pair):
            raise ValueError(f"versions of libraries are texts, got {self.versions!r}")


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


@dataclass(frozen=True, kw_only=True)
class AbandonBody:
    """A release was given up; ``event`` is all that was begun."""

    release: str
    event: dict[str, Any]
    cost: float | None
    reason: str


Body = SplitBody | OpenBody | ReserveBody | SettleBody | AbandonBody
_BODIES: dict[str, type[Body]] = {
    "split": SplitBody,
    "open": OpenBody,
    "reserve": ReserveBody,
    "settle": SettleBody,
    "abandon": AbandonBody,
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry, whose digest covers everything in it and, through ``previous``, everything before it."""

    population: str
    sequence: int
    """1 for the first."""
    kind: Kind
    day: str
    """YYYY-MM-DD, UTC; a finer time would be a private fact."""
    body: Body
    previous: str
    digest: str

    def __post_init__(self) -> None:
        """Refuse a body of another kind, and a day that is none, which could carry anything."""
        if type(self.body) is not _BODIES[self.kind]:
            raise ValueError(f"an entry of kind {self.kind} has no body such as {self.body!r}")
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", self.day):
            raise ValueError(f"the day of an entry is YYYY-MM-DD, got {self.day!r}")

    def content(self) -> bytes:
        """Return the bytes that ``digest`` is the SHA-256 of."""
        return canonical_json({key: value for key, value in self.to_json().items() if key != "digest"})

    def to_json(self) -> dict[str, Any]:
        """Return the exported form."""
        form = {"version": VERSION, **asdict(self)}
        if self.kind == "reserve" and form["body"]["approval"] is None:
            del form["body"]["approval"]
        elif self.kind == "reserve" and form["body"]["approval"]["asked_in"] is None:
            del form["body"]["approval"]["asked_in"]
        return form


def new_entry(population: str, after: Sequence[Entry], day: str, body: Body) -> Entry:
    """Return the entry that follows ``after`` in the chain of ``population``."""
    kind: Any = next(kind for kind, form in _BODIES.items() if type(body) is form)
    fields = {
        "population": population,
        "sequence": len(after) + 1,
        "kind": kind,
        "day": day,
        "body": body,
        "previous": after[-1].digest if after else START,
    }
    digest = hashlib.sha256(Entry(**fields, digest="").content()).hexdigest()
    return Entry(**fields, digest=digest)


@dataclass(frozen=True, kw_only=True)
class _Form:
    version: int
    population: str
    sequence: int
    kind: Kind
    day: str
    body: dict[str, Any]
    previous: str
    digest: str


def entry_from_json(value: Any, where: str) -> Entry:
    """Return the entry that an exported JSON value describes; a broken one is an error that starts ``where``.

    Guarantee: known version and kind, exactly the keys of the kind, and a digest that is the content's.
    """
    entry = _entry(value, where)
    if hashlib.sha256(entry.content()).hexdigest() != entry.digest:
        raise ValueError(f"{where} is not the one that its digest names")
    return entry


def entry_from_content(value: Any, content: bytes, where: str) -> Entry:
    """Return ``entry_from_json`` of a value whose digest covers ``content``, without writing it out again."""
    entry = _entry(value, where)
    if hashlib.sha256(content).hexdigest() != entry.digest:
        raise ValueError(f"{where} is not the one that its digest names")
    return entry


def chain_to_json(population: str, entries: Sequence[Entry]) -> dict[str, Any]:
    """Return a whole chain as evidence that Git keeps."""
    return {
        "version": VERSION,
        "population": population,
        "entries": [entry.to_json() for entry in entries],
    }


def chain_from_json(value: Any, where: str) -> list[Entry]:
    """Return the entries of an exported chain, each checked alone; errors start with ``where``.

    ``history.history_of`` checks that they follow each other and keep the rules.
    """
    form = parse(value, _Chain, where)
    if form.version != VERSION:
        raise ValueError(f"{where} has version {form.version}; this dualpriv reads version {VERSION}")
    found = [entry_from_json(item, f"{where}, entry {number}") for number, item in enumerate(form.entries, 1)]
    if any(entry.population != form.population for entry in found):
        raise ValueError(f"{where} holds entries of other populations than '{form.population}'")
    return found


@dataclass(frozen=True, kw_only=True)
class _Chain:
    version: int
    population: str
    entries: tuple[dict[str, Any], ...]


def _body(kind: Kind, body: dict[str, Any], where: str) -> Body:
    """Return the body; that nobody was asked, or not where, is said by a missing key, and no other way."""
    if kind == "reserve":
        approval = body.get("approval", ...)
        if approval is None:
            raise KeyError(f"{where} has unknown keys ['approval']: nobody approved")
        if isinstance(approval, dict):
            if approval.get("asked_in", ...) is None:
                raise KeyError(f"{where}, approval has unknown keys ['asked_in']: no run asked")
            body = body | {"approval": {"asked_in": None} | approval}
        body = {"approval": None} | body
    return parse(body, _BODIES[kind], where)


def _entry(value: Any, where: str) -> Entry:
    form = parse(value, _Form, where)
    if form.version != VERSION:
        raise ValueError(f"{where} has version {form.version}; this dualpriv reads version {VERSION}")
    return Entry(
        population=form.population,
        sequence=form.sequence,
        kind=form.kind,
        day=form.day,
        body=_body(form.kind, form.body, f"{where}, body"),
        previous=form.previous,
        digest=form.digest,
    )
