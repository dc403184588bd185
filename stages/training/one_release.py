"""The life of one noised sum over private units: reserved, begun, drawn, written, settled.

Its run key lives in ``scratch/<stage>/<fingerprint>/`` as that of a training run does (run_folder.py), and is
destroyed once the output has been accounted.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.core.canonical import canonical_json
from stages.core.contract import Stage, section
from stages.core.files import read_json, sha256, write_bytes
from stages.core.fingerprint import ResolvedInputs
from stages.core.spending import Spending
from stages.ledger.ledger import Ledger, Reservation, Settlement
from stages.ledger.release import recorded_digest
from stages.privacy.accountants import Relation
from stages.privacy.chain import Split
from stages.privacy.charge import noised_sum_charge
from stages.privacy.noise import NoisySum, released_before
from stages.privacy.noised_sum import NoisedSum
from stages.privacy.population import Population
from stages.privacy.priced_precision import require_priced_precision
from stages.privacy.stream import Streams
from stages.records.owner import require_owned
from stages.training.abandoned import was_abandoned
from stages.training.approved import approval_given
from stages.training.intents import Intents
from stages.training.key_archive import RunKeyArchive
from stages.training.run_folder import RunFolder, open_run
from stages.training.spending import spending_of
from stages.training.unfinished import make_way
from stages.vlm.source import Model


@dataclass(frozen=True, kw_only=True)
class Releasing(Stage):
    """A stage that may release one noised sum over private units."""

    model: Model
    population: Population
    relation: Relation = section("privacy.relation")
    meta: ClassVar[dict[str, Any]] = {"approve": "spend"}

    def would_release(self) -> tuple[NoisedSum, Split, Path] | None:
        """Return mechanism, split and output of what a run releases; None: it releases nothing."""
        raise AssertionError("a releasing stage defines would_release")

    def spending(self) -> Spending | None:
        """Return what a run would reserve."""
        found = self.would_release()
        if found is None:
            return None
        mechanism, split, output = found
        return spending_of(self, output, self.population, self.relation, split, mechanism.event())


@dataclass(frozen=True)
class OneRelease:
    """A release that is reserved and begun: private rows may be read for it, and for nothing else."""

    mechanism: NoisedSum
    folder: RunFolder
    streams: Streams
    charge: Mapping[str, Any]
    code: str
    commit: str
    versions: Mapping[str, str]

    def sample(self, rows_by_unit: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
        """Return the rows to look at of each unit that joins."""
        return self.mechanism.sample(rows_by_unit, self.streams)

    def noised(self, contributions_UK: Tensor) -> NoisySum:
        """Return the one noised sum of this release, which is on disk by then.

        Guarantee: whoever asks again gets that sum, whatever is given: a run that was killed and goes on with
        other ``speed`` settings may round other contributions, and the same noise must not hide two sums.
        """
        if not self.folder.noised.exists():
            found = self.mechanism.release(contributions_UK, self.streams)
            write_bytes(self.folder.noised, canonical_json(found.sum_P.tolist()), mode=0o600)
        return released_before(torch.tensor(read_json(self.folder.noised), dtype=torch.float64))

    def to_json(self) -> dict[str, Any]:
        """Return what the output says of how it was made."""
        return {
            "charge": dict(self.charge),
            "mechanism": asdict(self.mechanism),
            "made_by": {"code": self.code, "commit": self.commit, "versions": dict(self.versions)},
        }


@contextmanager
def one_release(
    stage: Releasing, mechanism: NoisedSum, records: Path, split: Split, outputs: Sequence[Path]
) -> Iterator[OneRelease]:
    """Let the block read units of ``split`` from ``records``, release one noised sum, and write ``outputs``.

    Guarantee: the release is reserved in the ledger, and its intent on disk, before the block begins. Killed
    at any moment and run again on the same inputs, it draws the same bits and is the same release. When DVC
    has recorded ``outputs[0]`` as this release wrote it, the next run is another one, with a fresh key.

    Errors: a budget that does not suffice is a ValueError of the ledger's; then nothing is spent or read.
    """
    RunKeyArchive.load()  # refuses a broken one before anything is spent
    require_priced_precision(stage.model.precision, stage.population)
    population, name = stage.population, stage.name()
    inputs, ledger = ResolvedInputs.of(stage), Ledger.load(make=False)
    recorded = recorded_digest(name, outputs[0])
    require_owned(records, ledger.population_key(population.name), population.name)
    make_way(ledger, name, inputs, recorded, population, stage.relation)
    with open_run(name, inputs.fingerprint(), recorded, was_abandoned(ledger, population.name)) as folder:
        folder.note_inputs(inputs.values)
        streams = Streams(folder.run_key(), inputs.fingerprint(), name)
        release = streams.release_id()
        charge = noised_sum_charge(name, split, population, stage.relation, release, mechanism)
        commit = folder.commit_at_start()
        header = {"release": release, "charge": dict(charge), "commit": commit}
        intents = Intents(folder.intents, header)
        ledger.reserve(
            population,
            stage.relation,
            Reservation(
                release=release,
                stage=name,
                split=split,
                sampler=mechanism.sampler,
                event=mechanism.event(),
                approval=approval_given(inputs.fingerprint()),
            ),
        )
        intents.record(0, asdict(mechanism))
        code, versions = inputs.code_digest(), inputs.values["versions"]
        yield OneRelease(mechanism, folder, streams, charge, code, commit, versions)
        ledger.settle(
            population.name,
            Settlement(
                release=release,
                event=mechanism.event(),
                released={path.as_posix(): sha256(path) for path in outputs},
                code=code,
                commit=commit,
                versions=versions,
            ),
        )
        folder.finish(outputs[0])
