"""Utility of the zero-shot and the tuned model on held-out records."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.contract import reads, writes
from stages.core.entry import main
from stages.core.files import write_json
from stages.core.fingerprint import ResolvedInputs
from stages.core.speed import Speed, use
from stages.evaluation.accuracy import accuracy_by_kind
from stages.evaluation.noised_accuracy import (
    answered_alone,
    counted_kinds,
    counts_by_unit,
    noised_accuracy_by_kind,
)
from stages.evaluation.settings import EvaluateSettings
from stages.evaluation.zero_shot import counted_once
from stages.privacy.chain import Split
from stages.privacy.charge import declared_public
from stages.privacy.noised_sum import NoisedSum
from stages.records.data import Data
from stages.records.encoded import read_encoded
from stages.trainable.adapters import load_adapter
from stages.training.one_release import Releasing, one_release
from stages.vlm.family import load
from stages.vlm.loaded import Loaded


@dataclass(frozen=True, kw_only=True)
class Evaluate(Releasing):
    """Answer held-out questions before and after fine-tuning, and say how the figures were released."""

    evaluate: EvaluateSettings
    data: Data
    encoded: Path = reads("data/encoded/heldout")
    backbone: Path = reads("models/backbone")
    adapter: Path = reads("models/adapter")
    metrics: Path = writes("data/evaluate/metrics.json", evidence=True)

    def would_release(self) -> tuple[NoisedSum, Split, Path] | None:
        """Return the noised sum over private units; None where only public records are looked at."""
        return None if self.evaluate.release == "public" else (self.evaluate.private, "heldout", self.metrics)

    def run(self) -> None:
        """Count exact answers by kind for both models."""
        self._require_releasable()
        speed = use(Speed.load())
        loaded = load(self.backbone, device=speed.device, precision=self.model.precision)
        if self.evaluate.release == "public":
            self._exactly(loaded, speed)
        else:
            self._noised(loaded, speed)

    def _require_releasable(self) -> None:
        """Refuse exact figures on a random part of people who are not public."""
        if self.evaluate.release == "private":
            return
        if not self.population.admits_exact_figures(self.data.private.split):
            raise ValueError(
                f"evaluate.release public: the held-out units of population '{self.population.name}', which "
                "is not public, are a random part of it; set evaluate.release to private, or have a field of "
                "the source (data.private.split) name held-out records that are public"
            )

    def _exactly(self, loaded: Loaded, speed: Speed) -> None:
        encoded = read_encoded(self.encoded)
        arguments = (loaded.family, encoded, speed.micro_batch)
        zero_shot = counted_once(
            self._decides_zero_shot(speed),
            lambda: accuracy_by_kind("evaluate zero-shot", loaded.model, *arguments),
        )
        tuned = accuracy_by_kind(
            "evaluate tuned", load_adapter(loaded.model, self.adapter, loaded.family), *arguments
        )
        self._write(
            "exact counts; the held-out records are declared public",
            encoded.visual_tokens,
            (zero_shot, tuned),
            {"charge": declared_public(self.name(), "heldout", self.population, self.relation)},
        )

    def _decides_zero_shot(self, speed: Speed) -> dict[str, Any]:
        """Return what the counts of the model hang on that was not tuned; rounding is part of it."""
        inputs = ResolvedInputs.of(self).values
        read = {path.as_posix(): inputs["files"][path.as_posix()] for path in (self.encoded, self.backbone)}
        rounding = [self.model.precision, speed.device, speed.threads, speed.micro_batch]
        return {"files": read, "code": inputs["code"], "versions": inputs["versions"], "rounding": rounding}

    def _noised(self, loaded: Loaded, speed: Speed) -> None:
        mechanism, kinds = self.evaluate.private, counted_kinds(self.evaluate.private.kinds)
        with one_release(self, mechanism, self.encoded, "heldout", (self.metrics,)) as release:
            # private from here
            encoded = read_encoded(self.encoded)
            units = release.sample(encoded.rows_by_unit())
            arguments = (loaded.family, encoded, units, speed.micro_batch)
            zero_shot = answered_alone("evaluate zero-shot", loaded.model, *arguments)
            tuned = answered_alone(
                "evaluate tuned", load_adapter(loaded.model, self.adapter, loaded.family), *arguments
            )
            noised = release.noised(counts_by_unit(encoded, units, (zero_shot, tuned), kinds))
            visual_tokens = encoded.visual_tokens  # that of the public token rule
            del encoded, units, arguments, zero_shot, tuned
            # public from here
            self._write(
                f"noised counts: {mechanism.words()}",
                visual_tokens,
                noised_accuracy_by_kind(noised.sum_P, kinds, mechanism.deviation),
                release.to_json(),
            )

    def _write(self, release: str, visual_tokens: int | None, by_model: Any, about: dict[str, Any]) -> None:
        zero_shot, tuned = by_model
        write_json(
            self.metrics,
            {
                "version": 2,
                "release": release,
                "visual_tokens": visual_tokens,
                "zero_shot": {kind: found.to_json() for kind, found in zero_shot.items()},
                "tuned": {kind: found.to_json() for kind, found in tuned.items()},
                **about,
            },
        )


if __name__ == "__main__":
    main(Evaluate)
