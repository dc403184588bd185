"""Load the processor that a model came with: its tokenizer, chat template and image processor.

Some families' processors also read videos, and transformers asks for torchvision to load that part. Records
have no videos, so it is left out, and the same bytes come out with torchvision installed or not.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, AutoTokenizer
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

_FILES_ALONE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def load_processor(path: Path) -> Any:
    """Load a processor from files alone; its class is that of the model's configuration."""
    kind: Any = PROCESSOR_MAPPING[type(AutoConfig.from_pretrained(path, **_FILES_ALONE))]
    if "video_processor" not in kind.get_attributes():
        return AutoProcessor.from_pretrained(path, **_FILES_ALONE)  # type: ignore[no-untyped-call]
    parts = {
        "image_processor": AutoImageProcessor.from_pretrained(path, **_FILES_ALONE),  # type: ignore[no-untyped-call]
        "tokenizer": AutoTokenizer.from_pretrained(path, **_FILES_ALONE),
    }
    about, _ = kind.get_processor_dict(path, **_FILES_ALONE)
    given = [parts.get(name) for name in kind.get_attributes()]
    return images_only(kind).from_args_and_dict(given, about)


def images_only(kind: Any) -> Any:
    """Return the class of a processor that does without what reads videos."""

    class ImagesOnly(kind):  # type: ignore[misc]
        video_processor = SimpleNamespace(num_frames=None, fps=None)
        """What SmolVLM's chat template hands on for videos, of which there are none."""

        @classmethod
        def get_attributes(cls) -> list[str]:
            """Leave out the part for videos."""
            return [name for name in super().get_attributes() if name != "video_processor"]

    ImagesOnly.__name__ = kind.__name__
    return ImagesOnly
