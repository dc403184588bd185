"""The side network: what a frozen language model says on the way up, read by a narrow network that learns.

The first variant of DP-MemArc (Liu et al. 2024), after Ladder Side-Tuning (Sung et al. 2022). With h_l what
the l-th tapped layer of the backbone returns and h_0 what its first layer reads:

    s_0 = Down_0(h_0)
    z_l = mu_l Down_l(h_l) + (1 - mu_l) s_(l-1),   mu_l = sigmoid(a_l / 0.1), a_l = 0 at the start
    s_l = SideBlock_l(z_l)

and Up(s_last) is added to the last hidden state, after the backbone's final normalisation, for the frozen
head. Up is zero at the start, so at first the output is the backbone's. Down_l reads h_l as the backbone's
own layers do, scaled to a root mean square of 1, and so does Up: a few places of real models are a thousand
times larger than all others, and would fill a unit's whole norm.

What a step keeps. The backbone needs no backward pass, so nothing of its layers' interior is kept; of what
width d there is, h_l alone, one tensor a tapped layer, which the gradient of Down_l is made of. All else is
of width d / reduction. Where ``forgets`` is set (speed.recompute_activations), not even h_l is kept: the
backbone runs once more in the backward pass (stages/trainable/side_again.py).

Shapes: R rows, L places, D width of the language model, W that of the side network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from stages.trainable.settings import SideSettings
from stages.trainable.side_again import Call, Owed, raised_again
from stages.trainable.side_block import LEAST_WIDTH, SideBlock, normalised, seen_places

_TEMPERATURE = 0.1


@dataclass(frozen=True, kw_only=True)
class SideShape:
    """The language model that a side network stands beside, and how narrow and how often it is tapped."""

    width: int
    """Of the language model, as the next one."""
    layers: int
    reduction: int
    every: int

    def __post_init__(self) -> None:
        """Refuse a width that does not come out even, or too small to hold anything."""
        narrow, rest = divmod(self.width, self.reduction)
        if rest or narrow % 2 or narrow < LEAST_WIDTH:
            raise ValueError(
                f"trainable.side.reduction {self.reduction} makes a side network of width "
                f"{self.width / self.reduction:g} beside a language model of width {self.width}: it must be "
                f"an even number of at least {LEAST_WIDTH}"
            )

    @classmethod
    def beside(cls, language: Any, settings: SideSettings) -> "SideShape":
        """Return that of a side network beside a language model, whose layers are ``.layers``."""
        return cls(
            width=language.config.hidden_size,
            layers=len(language.layers),
            reduction=settings.reduction,
            every=settings.every,
        )

    @property
    def narrow(self) -> int:
        """Return the width of the side network."""
        return self.width // self.reduction

    def tapped(self) -> list[int]:
        """Return which layers are tapped, from the last one down by ``every``, first to last.

        >>> SideShape(width=64, layers=7, reduction=8, every=2).tapped()
        [0, 2, 4, 6]
        """
        return list(range(self.layers - 1, -1, -self.every))[::-1]


class SideNetwork(nn.Module):
    """The network, and what of the backbone it has heard in a forward pass that is under way."""

    def __init__(self, shape: SideShape) -> None:
        """Draw weights from torch's global stream; Up and the gates start at zero."""
        super().__init__()
        self.shape, self.forgets = shape, False
        width, narrow, taps = shape.width, shape.narrow, len(shape.tapped())
        self.downs = nn.ModuleList(nn.Linear(width, narrow, bias=False) for _ in range(taps + 1))
        self.gates = nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in range(taps))
        self.blocks = nn.ModuleList(SideBlock(narrow) for _ in range(taps))
        self.up = nn.Linear(narrow, width, bias=False)
        for layer in (*self.gates, self.up):
            nn.init.zeros_(layer.weight)
        self._forget()

    def listen(self, model: nn.Module, language: Any) -> None:
        """Hook this network onto a language model and onto the model around it, which knows of padding."""
        model.register_forward_pre_hook(self._begin, with_kwargs=True)
        language.register_forward_pre_hook(self._called, with_kwargs=True)
        language.layers[0].register_forward_pre_hook(self._hear_embeddings, with_kwargs=True)
        for layer in self.shape.tapped():
            language.layers[layer].register_forward_hook(self._hear_layer)
        language.register_forward_hook(self._add)

    def _forget(self) -> None:
        self._heard: list[Tensor] = []
        self._climbed = 0
        self._state: Tensor | None = None
        self._seen: Tensor | None = None
        self._call: Call | None = None
        self._owed: Owed | None = None

    def _begin(self, model: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        """Take the padding mask where it still is one: some models hand their layers something else."""
        self._forget()
        mask = signature(model.forward).bind_partial(*args, **kwargs).arguments.get("attention_mask")
        if mask is not None and not (isinstance(mask, Tensor) and mask.dim() == 2):
            raise ValueError("a side network needs attention_mask as ones and zeros, (rows, places)")
        self._seen = seen_places(mask)

    def _hear_embeddings(self, layer: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        self._hear(args[0] if args else kwargs["hidden_states"])

    def _hear_layer(self, layer: nn.Module, args: Any, output: Any) -> None:
        self._hear(output[0] if isinstance(output, tuple) else output)

    def _called(self, language: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        _require_whole_rows(kwargs)
        if self._forgets_now() and self._owed is None:
            self._call = Call(language, args, dict(kwargs))

    def _forgets_now(self) -> bool:
        return self.forgets and torch.is_grad_enabled() and any(w.requires_grad for w in self.parameters())

    def _hear(self, hidden_RLD: Tensor) -> None:
        hidden_RLD = normalised(hidden_RLD.detach())
        if self._owed is not None:
            self._owed.hear(hidden_RLD.to(self.up.weight.dtype))
        elif self._call is not None:
            with torch.no_grad():
                self._heard.append(self.down(len(self._heard), hidden_RLD))
        else:
            self._heard.append(hidden_RLD)
            if not torch.is_grad_enabled():
                self._climb()  # nothing is kept for a backward pass, so neither is what was heard

    def down_weights(self) -> list[nn.Parameter]:
        """Return the weights of Down_0, Down_1, and so on."""
        return [weight for down in self.downs for weight in down.parameters()]

    def down(self, step: int, hidden_RLD: Tensor) -> Tensor:
        """Return Down_l of what was heard, (R, L, W)."""
        down_RLW: Tensor = self.downs[step](hidden_RLD.to(self.up.weight.dtype))
        return down_RLW

    def _climb(self) -> None:
        """Take in what was heard, step by step; after the backbone's pass, whose interior is gone by then."""
        while self._heard:
            step, self._climbed = self._climbed, self._climbed + 1
            self._state = self.mixed(step, self.down(step, self._heard.pop(0)), self._state, self._seen)

    def mixed(self, step: int, down_RLW: Tensor, state_RLW: Tensor | None, seen: Tensor | None) -> Tensor:
        """Return s_l of Down_l and s_(l-1), (R, L, W)."""
        if state_RLW is None:
            return down_RLW
        ones_R11 = down_RLW.new_ones(len(down_RLW), 1, 1)
        share_R11 = torch.sigmoid(self.gates[step - 1](ones_R11) / _TEMPERATURE)
        next_RLW: Tensor = self.blocks[step - 1](state_RLW + share_R11 * (down_RLW - state_RLW), seen=seen)
        return next_RLW

    def raised(self, downs: Sequence[Tensor], seen: Tensor | None) -> Tensor:
        """Return what is added to the last hidden state, (R, L, D), of all Down_l."""
        state_RLW: Tensor | None = None
        for step, down_RLW in enumerate(downs):
            state_RLW = self.mixed(step, down_RLW, state_RLW, seen)
        assert state_RLW is not None
        added_RLD: Tensor = self.up(normalised(state_RLW))
        return added_RLD

    def again(self, call: Call, owed: Owed) -> None:
        """Run the backbone once more and let ``owed`` hear it."""
        self._owed = owed
        try:
            with torch.no_grad():
                call.language(*call.args, **call.kwargs)
        finally:
            self._forget()

    def _add(self, language: nn.Module, args: Any, output: Any) -> Any:
        """Add what the side network makes of all it heard to the last hidden state."""
        if self._owed is not None:
            return output
        if self._call is not None:
            added_RLD = raised_again(self, self._call, self._heard, self._seen)
        else:
            self._climb()
            assert self._state is not None
            added_RLD = self.up(normalised(self._state))
        self._forget()
        if isinstance(output, tuple):
            return (output[0] + added_RLD.to(output[0].dtype), *output[1:])
        hidden_RLD = output.last_hidden_state
        output.last_hidden_state = hidden_RLD + added_RLD.to(hidden_RLD.dtype)
        return output


def _require_whole_rows(kwargs: Mapping[str, Any]) -> None:
    """Refuse to go on behind tokens that were read before, of which this network remembers nothing."""
    cache = kwargs.get("past_key_values")
    if cache is not None and cache.get_seq_length() > 0:
        raise ValueError(
            "a side network keeps no cache of earlier tokens: pass use_cache=False, to generate as well"
        )
