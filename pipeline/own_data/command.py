"""The command ``dualpriv init``: look at records and a model, ask what a person decides, write it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.own_data.admitted import least_limit, plan_of
from pipeline.own_data.declared import Declared, Said, declared, declared_limit
from pipeline.own_data.fitting import Fitting, fitting_of
from pipeline.own_data.look import Look, look_at, show
from pipeline.own_data.place import place_of, require_out_of_git
from pipeline.presets import merge
from pipeline.use import merged, put
from stages.core.files import write_bytes
from stages.core.params import PARAMS, read_params, read_section
from stages.privacy.canary_settings import CanarySettings
from stages.records.source import Source
from stages.records.store import SALT, SALT_BYTES
from stages.trainable.settings import Trainable

BATCH = 500.0
"""Expected units of a step, where an eighth of all is more; `dualpriv budget` says what another costs."""
FEW = 4000
"""Declared units below which canaries would be a noticeable share of the training units."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The command line."""

    data: Path
    rows: str | None
    model: str
    revision: str | None
    unit: str
    kind: str | None
    split: str | None
    on_bad_record: Literal["stop", "skip"]
    public: Path | None
    public_unit: str | None
    said: Said
    dry_run: bool


def init_command(asked: Asked) -> None:
    """Look, ask, and write ``params.yaml``; nothing that was counted is written anywhere.

    Errors: a ValueError where records cannot be used, after every one of them was told, and for whatever
    ``place``, ``declared`` and ``fitting`` refuse; then nothing is written.
    """
    params = read_params()
    place = place_of(asked.data, asked.rows)
    require_out_of_git(place)
    source = place.source(
        unit=asked.unit, kind=asked.kind, split=asked.split, on_bad_record=asked.on_bad_record
    )
    public = _public(asked)
    salt = source.path / SALT
    if salt.exists() and salt.stat().st_size < SALT_BYTES:
        raise ValueError(f"{salt} is shorter than {SALT_BYTES} random bytes: remove it, and init makes one")
    fitting = fitting_of(asked.model, asked.revision, read_section(params, "trainable", Trainable).targets)
    look = look_at(source)
    show(look, params["estimator"]["rows_per_unit"])
    _require_usable(look)
    if public is not None and look.names & public.names:
        raise ValueError(
            "--public names records of units that are in --data too: take them out of one of them"
        )
    found = declared(asked.said, asked.unit)
    canaries = (
        read_section(params, "canaries", CanarySettings).count if found.population.max_units >= FEW else 0
    )
    _require_within(look, found, canaries)
    changes = _changes(params, source, public, found, fitting, canaries)
    merge(params, changes, "init")
    limit = declared_limit(asked.said, least_limit(plan_of(params), found.delta))
    changes["ledger"] = {"limit": {"epsilon": limit, "delta": found.delta}}
    before = PARAMS.read_text()
    after = merged(before, changes, "init")
    if not asked.dry_run and not salt.exists():  # before the parameters: where it fails, nothing is changed
        write_bytes(salt, os.urandom(SALT_BYTES), mode=0o600)
        print(f"{salt} holds random bytes, so that nobody can guess records by their digests: keep it")
    put(before, after, "init", dry_run=asked.dry_run)
    if not asked.dry_run:
        print(_next(public, fitting))


def _public(asked: Asked) -> Look | None:
    if asked.public is None:
        return None
    unit = asked.public_unit or asked.unit
    found = place_of(asked.public, None, "--public").source(
        unit=unit, kind=asked.kind, split=None, on_bad_record="stop"
    )
    look = look_at(found)
    if look.problems:
        raise ValueError(f"--public {asked.public}: {look.problems[0]}")
    return look


def _require_usable(look: Look) -> None:
    """Refuse records that ingest would refuse; each of them has been told."""
    skips = look.source.on_bad_record == "skip"
    stopping = [problem for problem in look.problems if not (skips and problem.is_alone)]
    if stopping:
        only_alone = all(problem.is_alone for problem in stopping)
        way_out = " or leave them out with --on-bad-record skip" if only_alone else ""
        raise ValueError(f"{len(stopping)} records cannot be used, named above: mend them{way_out}")
    if not look.rows:
        raise ValueError(f"{look.source.path} holds no record that can be used")


def _require_within(look: Look, found: Declared, canaries: int) -> None:
    if look.units + canaries > found.population.max_units:
        made_up = f" and {canaries} canaries" if canaries else ""
        raise ValueError(
            f"there are {look.units} units{made_up}, more than --max-units {found.population.max_units}: the "
            "bound is for years to come, so declare one that leaves room"
        )


def _changes(
    params: dict[str, Any],
    source: Source,
    public: Look | None,
    found: Declared,
    fitting: Fitting,
    canaries: int,
) -> dict[str, Any]:
    """Return what params.yaml is to say: from declarations and public shapes, never from a count."""
    training = found.about * (1 - params["data"]["heldout"])
    batch = min(BATCH, max(1.0, training // 8))
    data = {"private": _section(source)} | ({} if public is None else {"public": _section(public.source)})
    return fitting.changes() | {
        "data": data,
        "population": {
            "name": found.population.name,
            "public": False,
            "max_units": found.population.max_units,
            "unit": found.population.unit,
        },
        "privacy": {"epsilon": found.epsilon, "delta": found.delta},
        "canaries": {"count": canaries},
        "sampling": {"rate": float(f"{batch / training:.3g}"), "expected_batch": batch},
        "evaluate": {"release": "private"},
    }


def _section(source: Source) -> dict[str, Any]:
    return {
        "path": source.path.as_posix(),
        "rows": source.rows,
        "format": source.format,
        "unit": source.unit,
        "kind": source.kind,
        "split": source.split,
        "on_bad_record": source.on_bad_record,
    }


def _next(public: Look | None, fitting: Fitting) -> str:
    lines = ["", "next:"]
    lines.append("  dualpriv budget     # what batch, steps and epsilon mean here, before anything is spent")
    lines.append(
        "  dvc repro           # the whole pipeline; `dvc repro plan` stops before the first private gradient"
    )
    if public is None:
        lines.append(
            "layers and budgets of visual tokens are chosen on the demonstration's public pictures: --public "
            "names ones that look like yours"
        )
    if fitting.visual_tokens is None:
        lines.append(
            "the model comes from the hub when stage backbone runs; its budgets of visual tokens are as they "
            "were: `dvc repro backbone`, and init again with --model models/backbone"
        )
    return "\n".join(lines)
