"""The run without privacy that a report shows beside its own: another commit of the same population."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.files import read_json
from stages.core.provenance import said_by_git


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Section ``report`` of params.yaml."""

    nonprivate: str | None
    """The commit, branch or DVC experiment of a finished run without privacy; None shows none."""


@dataclass(frozen=True)
class Reference:
    """What the run without privacy reached on held-out records."""

    named: str
    commit: str
    metrics: Mapping[str, Any]


def reference_of(comparison: Comparison, statement: Path, metrics: Path) -> Reference | None:
    """Return the run that ``report.nonprivate`` names, None where it names none.

    ``statement`` and ``metrics`` are the files of the report's own run, which the other has too. Errors: a
    name that Git does not know, a commit that holds no finished run, and a run that had privacy, or was about
    other people or questions, are ValueErrors: no page calls the reference what is none.
    """
    named = comparison.nonprivate
    if named is None:
        return None
    commit = _commit(named)
    own, other = read_json(statement), _value(named, commit, statement)
    asked, found = read_json(metrics)["tuned"], _value(named, commit, metrics)
    if other.get("epsilon") is not None:
        raise ValueError(
            f"report.nonprivate names {named!r}, whose statement says epsilon {other['epsilon']}: name a run "
            "of estimator.kind nonprivate, or set it to null"
        )
    for key in ("population", "unit"):
        if other.get(key) != own[key]:
            raise ValueError(
                f"report.nonprivate names {named!r}, a run on {key} {other.get(key)!r}, and this one is on "
                f"{own[key]!r}: name a run on the same, or set it to null"
            )
    if set(found["tuned"]) != set(asked):
        raise ValueError(
            f"report.nonprivate names {named!r}, a run that was asked other kinds of questions "
            f"({', '.join(sorted(found['tuned']))}): name a run on the same records, or set it to null"
        )
    return Reference(named, commit, found)


def _commit(named: str) -> str:
    """Return the commit that a name stands for; DVC keeps an experiment under the last part of a ref."""
    listed = said_by_git("for-each-ref", "--format=%(refname) %(objectname)", "refs/exps") or ""
    for line in listed.splitlines():
        ref, _, commit = line.partition(" ")
        if ref.rpartition("/")[2] == named:
            return commit
    found = said_by_git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{named}^{{commit}}")
    if found is None:
        raise ValueError(
            f"report.nonprivate names {named!r}, which is no commit, branch or experiment here: fetch it "
            "(an experiment by `dvc exp pull REMOTE NAME`), or set it to null"
        )
    return found


def _value(named: str, commit: str, file: Path) -> dict[str, Any]:
    content = said_by_git("show", f"{commit}:{file.as_posix()}")
    try:
        return dict(json.loads(content or ""))
    except (ValueError, TypeError):
        raise ValueError(
            f"report.nonprivate names {named!r}, whose commit holds no readable {file}: name a run that "
            "ended, or set it to null"
        ) from None
