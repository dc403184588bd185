"""The frozen vision tower, run once: pruned visual tokens and token rows, cached as safetensors."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from stages.core.contract import Stage, reads, writes
from stages.core.entry import main
from stages.core.files import read_json
from stages.core.fingerprint import ResolvedInputs
from stages.core.progress import progress
from stages.core.ranks import Ranks, joined
from stages.core.speed import Speed, use
from stages.records.encoded import write_encoded
from stages.records.owner import read_owner
from stages.records.store import SALT, read_rows
from stages.vlm.encoder import distinct_images, encode_set
from stages.vlm.family import load
from stages.vlm.loaded import Loaded
from stages.vlm.selection import Rule, TokenSelection
from stages.vlm.source import Model


@dataclass(frozen=True, kw_only=True)
class Encode(Stage):
    """Encode and prune every image once; a record's features depend on that record alone."""

    parallel: ClassVar[bool] = True

    tokens: TokenSelection
    model: Model
    backbone: Path = reads("models/backbone")
    calibration: Path = reads("data/calibrate/calibration.json")
    train: Path = reads("data/records/train")
    heldout: Path = reads("data/records/heldout")
    canaries: Path = reads("data/records/canaries")
    encoded_train: Path = writes("data/encoded/train")
    encoded_heldout: Path = writes("data/encoded/heldout")
    encoded_canaries: Path = writes("data/encoded/canaries")

    def run(self) -> None:
        """Encode both splits, and all canaries, under the calibrated rule."""
        speed = use(Speed.load())
        rule = Rule(**asdict(self.tokens), **read_json(self.calibration)["chosen"])
        with joined(speed.device) as ranks:
            if ranks.world > 1:  # alone, hashing a large backbone would be for nothing
                ranks.require_same(ResolvedInputs.of(self).fingerprint(), "inputs")
            loaded = load(self.backbone, device=speed.device, precision=self.model.precision)
            self._encode(loaded, rule, self.train, self.encoded_train, ranks)
            self._encode(loaded, rule, self.heldout, self.encoded_heldout, ranks)
            self._encode(loaded, rule, self.canaries, self.encoded_canaries, ranks)

    def _encode(self, loaded: Loaded, rule: Rule, records: Path, encoded: Path, ranks: Ranks) -> None:
        rows = read_rows(records)
        with progress(f"encode {records.name}", len(distinct_images(rows)[0])) as advance:
            found = encode_set(loaded, rows, rule, advance, ranks)
        if not ranks.leads:
            return
        salt = None if records == self.canaries else _salt(records)  # canaries are public
        write_encoded(encoded, found, salt, read_owner(records))


def _salt(records: Path) -> str:
    """Return the salt of the encoded set: whoever knows that of its records, and nobody else, can tell it."""
    return hashlib.sha256(b"salt encoded\0" + (records / SALT).read_bytes()).hexdigest()


if __name__ == "__main__":
    main(Encode)
