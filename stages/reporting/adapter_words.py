"""What the pages say of each kind of adapter: its name, its settings, and how it is loaded."""

from dataclasses import dataclass

from stages.trainable.settings import Trainable

_OURS = (
    "from pathlib import Path",
    "from stages.trainable.adapters import load_adapter",
    "from stages.vlm.family import FAMILIES",
)
_LOAD = "load_adapter(base.eval(), Path({release!r}), FAMILIES[base.config.model_type])"


@dataclass(frozen=True)
class AdapterWords:
    """One kind of adapter in words and in code; a kind is one entry of ``words_of``."""

    title: str
    library: str
    """The library that loads it, as the Hugging Face hub names it."""
    needs: str
    """A sentence on what it takes to load it."""
    settings: str
    """What it was made with, behind its kind."""
    where: str
    """Which layers it is on."""
    imports: tuple[str, ...]
    """Lines of code, besides those on transformers."""
    load: str
    """An expression that makes the tuned model from ``base``; {release} is the directory."""
    generate: str = ""
    """Further arguments of ``generate``."""


def words_of(trainable: Trainable) -> AdapterWords:
    """Return the words for a section ``trainable``."""
    if trainable.kind in ("lora", "ffa_lora"):
        return AdapterWords(
            title="LoRA adapter",
            library="peft",
            needs="Plain peft and transformers are enough",
            settings=f"rank {trainable.rank}, alpha {trainable.alpha:g}",
            where=", ".join(trainable.targets),
            imports=("from peft import PeftModel",),
            load="PeftModel.from_pretrained(base, {release!r}).eval()",
        )
    if trainable.kind == "side":
        every = trainable.side.every
        return AdapterWords(
            title="Side network",
            library="dualpriv",
            needs="It takes transformers and this repository, for no other library knows side networks",
            settings=f"reduction {trainable.side.reduction}",
            where="reads every layer" if every == 1 else f"reads one of every {every} layers",
            imports=_OURS,
            load=_LOAD,
            generate=", use_cache=False",
        )
    form = trainable.reversible
    return AdapterWords(
        title="Reversible adapters",
        library="dualpriv",
        needs="It takes transformers and this repository, for no other library knows reversible layers",
        settings=f"width {form.width}, lambda {form.scale:g}{', centred' if form.centred else ''}",
        where="around every layer",
        imports=_OURS,
        load=_LOAD,
        generate=", use_cache=False",
    )
