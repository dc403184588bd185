"""Public records -> the small demonstration backbone, committed to Git with a record of what made it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from stages.core.canonical import canonical_digest
from stages.core.closure import import_closure
from stages.core.contract import Stage, reads, section, writes
from stages.core.entry import main
from stages.core.files import Json, new_directory, sha256, write_json
from stages.core.progress import progress
from stages.demonstration import questions
from stages.demonstration.backbone import IMAGE_SIZE, PATCH_SIZE
from stages.demonstration.lessons import Lesson, gather
from stages.demonstration.pretraining import Progress, Recipe, pretrain
from stages.demonstration.processor import build_processor, complete
from stages.records.row import IMAGE, Row
from stages.records.store import read_rows


@dataclass(frozen=True, kw_only=True)
class Pretrain(Stage):
    """Train the demonstration backbone on public records. Run by hand: ``make pretrain``."""

    frozen: ClassVar[bool] = True

    recipe: Recipe = section("pretrain")
    seed: int = section("seed.public")
    public: Path = reads("data/records/public")
    pretrained: Path = writes("models/pretrained", evidence=True)

    def run(self) -> None:
        """Read the public rows, train, and write one ordinary Hugging Face directory with its provenance."""
        vocabulary = complete(questions.vocabulary())
        lessons = gather(map(_lesson, read_rows(self.public)), vocabulary)
        with progress("pretrain", self.recipe.steps) as advance:

            def report(seen: Progress) -> None:
                advance(seen.done)

            model = pretrain(lessons, vocabulary, self.recipe, self.seed, report)
        with new_directory(self.pretrained) as building:
            model.save_pretrained(building)
            build_processor(vocabulary, IMAGE_SIZE, PATCH_SIZE).save_pretrained(building)
            write_json(building / "provenance.json", self._provenance(building / "model.safetensors"))

    def _provenance(self, weights: Path) -> Json:
        """Return SHA-256 digests of weights, parameters, records and the files that decide the weights."""
        parameters = {"pretrain": asdict(self.recipe), "seed": {"public": self.seed}}
        code = import_closure("stages.demonstration.pretraining", Path())
        return {
            "weights": sha256(weights),
            "parameters": canonical_digest(parameters),
            "records": sha256(self.public),
            "code": {path.as_posix(): sha256(path) for path in code},
        }


def _lesson(row: Row) -> Lesson:
    asked, answered = row.messages
    question = asked.content.replace(IMAGE, "").strip()
    return Lesson(row.unit, row.images[0], row.kind, question, answered.content)


if __name__ == "__main__":
    main(Pretrain)
