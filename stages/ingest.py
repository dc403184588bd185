"""The user's own data -> canonical record sets: one unit a row, one split a unit, every image decoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.core.canonical import canonical_json
from stages.core.contract import Stage, reads_from, writes
from stages.core.entry import main
from stages.core.files import write_bytes
from stages.core.scratch import scratch_folder
from stages.ledger.ledger import Ledger
from stages.ledger.population_key import PopulationKey
from stages.privacy.canary_settings import CanarySettings
from stages.privacy.population import Population
from stages.records.canaries import is_planted, planned_canaries
from stages.records.data import Data
from stages.records.owner import owner_of
from stages.records.row import Row
from stages.records.source import Source, read_source
from stages.records.split import check_units, split_rows
from stages.records.store import SALT, SALT_BYTES, content_digest, write_rows


@dataclass(frozen=True, kw_only=True)
class Ingest(Stage):
    """Check the user's records and split the private ones by unit."""

    data: Data
    population: Population
    canaries: CanarySettings
    private_records: Path = reads_from("data.private.path")
    public_records: Path = reads_from("data.public.path")
    train: Path = writes("data/records/train")
    heldout: Path = writes("data/records/heldout")
    public: Path = writes("data/records/public")
    all_canaries: Path = writes("data/records/canaries")

    def run(self) -> None:
        """Read and check everything, record whose units these are, then write the sets.

        Canaries are nobody's and are not recorded as units; those whose coin says so join the training rows.
        """
        _require_salt(self.data.private, self.population)
        set_aside: dict[str, list[str]] = {"private": [], "public": []}
        private = read_source(self.data.private, set_aside["private"])
        public = read_source(self.data.public, set_aside["public"])
        _tell(self.data, set_aside)
        public_rows = [sourced.row for sourced in public]
        canaries = planned_canaries(self.canaries, public_rows)
        check_units(private, public, canaries, self.population.max_units)
        ledger = Ledger.load()
        key = ledger.population_key(self.population.name)
        train, heldout = split_rows(private, key, self.data.heldout)
        units = {sourced.row.unit for sourced in private}
        seen = {sourced.row.unit for sourced in public}
        ledger.register(self.population, units, self.data.split_rule(), seen)
        train += [row for row in canaries if is_planted(row.unit, key)]
        write_rows(self.train, train, _salt(train, key), owner_of(key))
        write_rows(self.heldout, heldout, _salt(heldout, key), owner_of(key))
        write_rows(self.public, public_rows, None)
        write_rows(self.all_canaries, canaries, None)
        counts = (
            f"{len(train)} train, {len(heldout)} heldout" if self.population.public else "uncounted private"
        )
        print(f"ingest: population {self.population.name}: {counts} and {len(public)} public records")


def _tell(data: Data, set_aside: dict[str, list[str]]) -> None:
    """Keep what was left out where only the owner of the records looks: how much it is, is private."""
    file = scratch_folder("ingest") / "set_aside.json"
    write_bytes(file, canonical_json(set_aside), mode=0o600)
    if "skip" in (data.private.on_bad_record, data.public.on_bad_record):
        print(f"ingest: records that cannot be used, if there are any, are left out and listed in {file}")


def _require_salt(source: Source, population: Population) -> None:
    """Refuse private input by whose digest, which DVC shows in ``dvc.lock``, a guess could be checked."""
    salt = source.path / SALT
    if population.public or (salt.is_file() and salt.stat().st_size >= SALT_BYTES):
        return
    raise ValueError(
        f"dvc.lock would show a digest of {source.path}, against which guesses of a record could be checked: "
        f"put {SALT_BYTES} random bytes beside the records of population '{population.name}' (`head -c "
        f"{SALT_BYTES} /dev/urandom > FOLDER/{SALT}`), name that folder as data.private.path and the file as "
        "data.private.rows"
    )


def _salt(rows: Sequence[Row], key: PopulationKey) -> bytes:
    """Return the salt of a private set: unguessable, and the same again for the same rows."""
    return key.digest("salt", content_digest(rows))


if __name__ == "__main__":
    main(Ingest)
