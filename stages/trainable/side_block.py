"""A transformer block of the side network: narrow, all of it linear layers that a per-unit norm is exact for.

Shapes: R rows, L places, W width of the block, H heads, E width of a head.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, rms_norm, scaled_dot_product_attention
from transformers.modeling_layers import GradientCheckpointingLayer

LEAST_WIDTH = 4
_WIDEST_HEAD = 64
_EXPANSION = 2
_ROTARY_BASE = 10_000.0
_EPSILON = 1e-6


class SideBlock(GradientCheckpointingLayer):  # type: ignore[no-untyped-call]
    """Causal self-attention and a perceptron, each beside a residual path, each after a normalisation.

    Normalisation has no weights of its own, for a trainable scale is no linear layer. The perceptron's
    nonlinearity is a rectifier: what it returns is all that its backward pass and the next layer need.

    Places are told apart by rotary positions (Su et al. 2021) that count places in the row, and not by the
    backbone's positions: of those, an image's slots share the first axis in models with M-RoPE, while the
    distance of two places in the row is the same however a row is padded.
    """

    def __init__(self, width: int) -> None:
        """Draw weights from torch's global stream; a width without heads of even width is a ValueError."""
        super().__init__()
        self.heads = heads_of(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.widen = nn.Linear(width, _EXPANSION * width, bias=False)
        self.narrow = nn.Linear(_EXPANSION * width, width, bias=False)

    def forward(self, given_RLW: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return s_l of z_l, (R, L, W).

        ``seen`` (R, 1, L, L) tells which places each place may look at; None: itself and all before it,
        which is enough where rows are padded on the right.
        """
        known_RLW: Tensor = given_RLW + self.output(self._attend(normalised(given_RLW), seen))
        added_RLW: Tensor = self.narrow(relu(self.widen(normalised(known_RLW))))
        return known_RLW + added_RLW

    def _attend(self, given_RLW: Tensor, seen: Tensor | None) -> Tensor:
        turn = _turns(given_RLW, given_RLW.shape[-1] // self.heads)
        query = _rotated(self._by_head(self.query(given_RLW)), turn)
        key = _rotated(self._by_head(self.key(given_RLW)), turn)
        value = self._by_head(self.value(given_RLW))
        found = scaled_dot_product_attention(query, key, value, attn_mask=seen, is_causal=seen is None)
        return found.transpose(1, 2).flatten(2)

    def _by_head(self, values_RLW: Tensor) -> Tensor:
        rows, length, width = values_RLW.shape
        return values_RLW.view(rows, length, self.heads, width // self.heads).transpose(1, 2)


def heads_of(width: int) -> int:
    """Return the fewest heads whose width is even and at most 64; such a width there is for even ones.

    >>> heads_of(512), heads_of(16), heads_of(448)
    (8, 1, 7)
    """
    if width < LEAST_WIDTH or width % 2:
        raise ValueError(f"a side network needs an even width of at least {LEAST_WIDTH}, got {width}")
    return next(
        heads
        for heads in range(1, width + 1)
        if width % heads == 0 and width // heads % 2 == 0 and width // heads <= _WIDEST_HEAD
    )


def normalised(values: Tensor) -> Tensor:
    """Return every place scaled to a root mean square of 1 (Zhang and Sennrich 2019), without weights."""
    return rms_norm(values, values.shape[-1:], eps=_EPSILON)


def seen_places(is_there_RL: Tensor | None) -> Tensor | None:
    """Return which places each place may look at, (R, 1, L, L); None where order alone decides it.

    That is so where rows are padded on the right or not at all: padding comes after all that is read. Every
    place sees at least itself, or it would be no number.
    """
    if is_there_RL is None:
        return None
    is_there_RL = is_there_RL.bool()
    if not bool((is_there_RL[:, 1:] & ~is_there_RL[:, :-1]).any()):
        return None
    length = is_there_RL.shape[1]
    before_LL = torch.ones(length, length, dtype=torch.bool, device=is_there_RL.device).tril()
    itself_LL = torch.eye(length, dtype=torch.bool, device=is_there_RL.device)
    return (before_LL & is_there_RL[:, None, None, :]) | itself_LL


def _turns(like_RLW: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of every place's rotation, (L, E / 2)."""
    wide = torch.promote_types(like_RLW.dtype, torch.float32)
    place_L = torch.arange(like_RLW.shape[1], device=like_RLW.device, dtype=wide)
    pair = torch.arange(0, width, 2, device=like_RLW.device, dtype=wide)
    angle = place_L[:, None] * _ROTARY_BASE ** (-pair / width)
    return angle.cos().to(like_RLW.dtype), angle.sin().to(like_RLW.dtype)


def _rotated(values_RHLE: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    (cosine, sine), (first, second) = turn, values_RHLE.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
