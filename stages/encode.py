"""The frozen vision tower, run once: pruned visual tokens and token rows, cached as safetensors."""

import hashlib
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from stages.core.canonical import canonical_digest
from stages.core.contract import Stage, reads, section, writes
from stages.core.entry import main
from stages.core.files import read_json
from stages.core.fingerprint import ResolvedInputs
from stages.core.progress import PARTS, in_parts, progress
from stages.core.ranks import Ranks, joined
from stages.core.scratch import scratch_folder
from stages.core.speed import Speed, use
from stages.records.encoded import write_encoded
from stages.records.owner import read_owner
from stages.records.store import SALT, StoredRecords
from stages.vlm.family import load
from stages.vlm.image_cache import ImageCache, in_use, remove_others
from stages.vlm.loaded import Loaded
from stages.vlm.selection import Rule, TokenSelection
from stages.vlm.source import Model
from stages.vlm.streaming import encode_stored


@dataclass(frozen=True, kw_only=True)
class Encode(Stage):
    """Encode and prune every image once; a record's features depend on that record alone."""

    parallel: ClassVar[bool] = True

    tokens: TokenSelection
    model: Model
    is_public: bool = section("population.public")
    backbone: Path = reads("models/backbone")
    pruning: Path = reads("data/calibrate/pruning.json")
    train: Path = reads("data/records/train")
    heldout: Path = reads("data/records/heldout")
    canaries: Path = reads("data/records/canaries")
    encoded_train: Path = writes("data/encoded/train")
    encoded_heldout: Path = writes("data/encoded/heldout")
    encoded_canaries: Path = writes("data/encoded/canaries")

    def run(self) -> None:
        """Encode both splits, and all canaries, under the calibrated rule; what is done outlives a kill."""
        speed = use(Speed.load())
        rule = self.tokens.under(read_json(self.pruning)["chosen"])
        inputs = ResolvedInputs.of(self)
        folder = scratch_folder("encode", _key(inputs, self.backbone, rule, speed.device))
        with joined(speed.device) as ranks, in_use(folder):
            ranks.require_same(inputs.fingerprint(), "inputs")
            loaded = load(self.backbone, device=speed.device, precision=self.model.precision)
            sets = {
                self.train: self.encoded_train,
                self.heldout: self.encoded_heldout,
                self.canaries: self.encoded_canaries,
            }
            wanted: list[str] = []
            for records, encoded in sets.items():
                wanted += self._encode(loaded, rule, records, encoded, folder, ranks)
            if ranks.leads:
                ImageCache.open(folder).retain(set(wanted))
                remove_others(folder)

    def _encode(
        self, loaded: Loaded, rule: Rule, records: Path, encoded: Path, folder: Path, ranks: Ranks
    ) -> list[str]:
        """Encode one set; how many images a private one has is shown to nobody."""
        stored = StoredRecords.open(records)
        ranks.gathered(0)  # what the leader wrote of the set before is there for all
        cache = ImageCache.open(folder)
        ranks.require_same(cache.digest(), "encoded images in scratch/encode, which all of them must see")
        is_public = self.is_public or records == self.canaries
        total = len(stored.images)
        with progress(f"encode {records.name}", total if is_public else PARTS, rate=is_public) as advance:
            told = advance if is_public else in_parts(total, advance)
            digests, found = encode_stored(loaded, stored, rule, cache, told, ranks, is_public=is_public)
        if ranks.leads:
            salt = None if records == self.canaries else _salt(records)  # canaries are public
            write_encoded(encoded, found, salt, read_owner(records))
        return digests


def _key(inputs: ResolvedInputs, backbone: Path, rule: Rule, device: str) -> str:
    """Return the name of all that decides an image's features beside the image."""
    decisive = {
        "backbone": inputs.values["files"][backbone.as_posix()],
        "code": inputs.values["code"],
        "device": device.partition(":")[0],
        "model": inputs.values["params"]["model"],
        "rule": asdict(rule),
        "versions": {**inputs.values["versions"], "pillow": version("pillow")},
    }
    return canonical_digest(decisive)[:32]


def _salt(records: Path) -> str:
    """Return the salt of the encoded set: whoever knows that of its records, and nobody else, can tell it."""
    return hashlib.sha256(b"salt encoded\0" + (records / SALT).read_bytes()).hexdigest()


if __name__ == "__main__":
    main(Encode)
