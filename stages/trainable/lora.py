"""Low-rank adapters on linear layers of the language model (Hu et al. 2021), by PEFT."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from torch import nn

from stages.core.disk_errors import system_errors
from stages.trainable.settings import Trainable

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def target_pattern(targets: Sequence[str], language_model: str) -> str:
    """Return the expression that names the target layers, anchored on the language model."""
    names = "|".join(re.escape(name) for name in targets)
    return rf"(?:{language_model})(?:{names})"


def attach_lora(model: nn.Module, trainable: Trainable, language_model: str, seed: int) -> PeftModel:
    """Wrap ``model`` with fresh adapters, all that learns; at first the output is the model's.

    ``seed`` is public: factor A is drawn from it and factor B is zero.
    """
    require_targets(model, trainable.targets, language_model)
    pattern = target_pattern(trainable.targets, language_model)
    config = LoraConfig(
        r=trainable.rank,
        lora_alpha=trainable.alpha,  # type: ignore[arg-type]
        lora_dropout=0.0,
        target_modules=pattern,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(), _without_peft_deprecation():
        torch.manual_seed(seed)
        wrapped = get_peft_model(model, config)
    if trainable.kind == "ffa_lora":
        for name, weight in wrapped.named_parameters():
            if ".lora_A." in name:
                weight.requires_grad_(False)
    wrapped.eval()
    return wrapped


def require_targets(model: nn.Module, targets: Sequence[str], language_model: str) -> None:
    """Refuse names that no layer of the language model has; shapes without values are enough."""
    pattern = target_pattern(targets, language_model)
    found = {name.rpartition(".")[2] for name, layer in model.named_modules() if re.fullmatch(pattern, name)}
    for target in targets:
        if target not in found:
            raise ValueError(
                f"trainable.targets: the language model has no layer '{target}'; its linear layers are "
                f"{_linear(model, language_model)}"
            )


def _linear(model: nn.Module, language_model: str) -> list[str]:
    pattern = re.compile(language_model)
    return sorted(
        {
            name.rpartition(".")[2]
            for name, layer in model.named_modules()
            if isinstance(layer, nn.Linear) and pattern.match(name)
        }
    )


def save_lora(model: nn.Module, directory: Path, *, base: str, revision: str | None) -> None:
    """Write the adapter as plain PEFT reads it: its configuration and its weights, nothing else.

    ``base`` is the name by which others know the backbone: a hub id, or a directory.
    """
    if not isinstance(model, PeftModel):
        raise TypeError(f"only a model with adapters has any to save, got {type(model).__name__}")
    config = model.peft_config["default"]
    config.base_model_name_or_path, config.revision = base, revision
    config.inference_mode = True
    with system_errors(directory):
        model.save_pretrained(str(directory), safe_serialization=True, save_embedding_layers=False)
    for file in directory.iterdir():
        if file.name not in (CONFIG, WEIGHTS):
            file.unlink()


def load_lora(model: nn.Module, directory: Path) -> nn.Module:
    """Return ``model`` with a stored adapter; a broken adapter is a ValueError that names it."""
    try:
        with _without_peft_deprecation():
            wrapped = PeftModel.from_pretrained(model, str(directory), local_files_only=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"{directory} cannot be loaded as an adapter: {' '.join(str(error).split())[:300]}"
        ) from None
    return wrapped.eval()


@contextmanager
def _without_peft_deprecation() -> Iterator[None]:
    """Hide that PEFT 0.21 still asks transformers 5.23 by a property's old name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield
