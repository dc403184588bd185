"""Utility of the zero-shot and the tuned model on held-out records."""

from dataclasses import dataclass
from pathlib import Path

from stages.core.contract import Stage, reads, writes
from stages.core.entry import main
from stages.core.files import write_json
from stages.core.speed import Speed, use
from stages.evaluation.accuracy import accuracy_by_kind
from stages.evaluation.settings import EvaluateSettings
from stages.privacy.population import Population
from stages.records.encoded import read_encoded
from stages.trainable.lora import load_adapter
from stages.vlm.family import load
from stages.vlm.source import Model


@dataclass(frozen=True, kw_only=True)
class Evaluate(Stage):
    """Answer held-out questions before and after fine-tuning, and say how the figures were released."""

    evaluate: EvaluateSettings
    model: Model
    population: Population
    encoded: Path = reads("data/encoded/heldout")
    backbone: Path = reads("models/backbone")
    adapter: Path = reads("models/adapter")
    metrics: Path = writes("data/evaluate/metrics.json", evidence=True)

    def run(self) -> None:
        """Count exact answers by kind for both models."""
        speed = use(Speed.load())
        loaded = load(self.backbone, device=speed.device, precision=self.model.precision)
        encoded = read_encoded(self.encoded)
        arguments = (loaded.family, encoded, speed.micro_batch)
        zero_shot = accuracy_by_kind("evaluate zero-shot", loaded.model, *arguments)
        tuned = accuracy_by_kind("evaluate tuned", load_adapter(loaded.model, self.adapter), *arguments)
        write_json(
            self.metrics,
            {
                "version": 1,
                "release": f"exact counts; the held-out records are declared {self.evaluate.release}",
                "visual_tokens": encoded.features_ISD.shape[1],
                "zero_shot": {kind: found.to_json() for kind, found in zero_shot.items()},
                "tuned": {kind: found.to_json() for kind, found in tuned.items()},
            },
        )


if __name__ == "__main__":
    main(Evaluate)
