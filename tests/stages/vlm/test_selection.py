"""Each rule is what its slow transcription says, and looks at one image only."""

import pytest
import torch
from torch import Tensor

from stages.vlm.llava import Seen
from stages.vlm.pruning import dominant_contextual
from stages.vlm.selection import (
    RULES,
    Selection,
    best_reconstructing,
    cells,
    most_attended,
    most_diverse,
    pooled,
)

TOKENS, WIDTH = 25, 7


def seen(images: int = 3, seed: int = 0) -> Seen:
    """Return what a tower of 5 x 5 patches might have seen."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(images, TOKENS, WIDTH, generator=generator, dtype=torch.float64)
    scores = torch.rand(images, TOKENS, generator=generator, dtype=torch.float64)
    metric = torch.nn.functional.normalize(
        torch.randn(images, TOKENS, 4, generator=generator).double(), dim=-1
    )
    return Seen(hidden, {1: scores}, {1: metric})


def selection(select: str, merge: str = "cluster", dominant: int = 6, contextual: int = 3) -> Selection:
    return Selection(select=select, merge=merge, layer=1, dominant=dominant, contextual=contextual)  # type: ignore[arg-type]


def slow_diverse(hidden: Tensor, count: int) -> list[int]:
    def distance(one: int, other: int) -> float:
        return 1 - float(torch.cosine_similarity(hidden[one], hidden[other], dim=0))

    everyone = range(len(hidden))
    first = max(everyone, key=lambda one: min(distance(one, other) for other in everyone if other != one))
    taken = [first]
    while len(taken) < count:
        rest = [one for one in everyone if one not in taken]
        taken.append(max(rest, key=lambda one: min(distance(one, other) for other in taken)))
    return sorted(taken)


def slow_reconstruct(hidden: Tensor, count: int) -> list[int]:
    def error(taken: list[int]) -> float:
        basis = hidden[taken].T
        solved = torch.linalg.lstsq(basis, hidden.T, driver="gelsd").solution
        return float((hidden.T - basis @ solved).square().sum())

    taken: list[int] = []
    while len(taken) < count:
        rest = [one for one in range(len(hidden)) if one not in taken]
        taken.append(min(rest, key=lambda one: error([*taken, one])))
    return sorted(taken)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("count", [1, 2, 6])
def test_diverse_and_reconstruct_equal_their_slow_transcriptions(seed: int, count: int) -> None:
    for hidden in seen(seed=seed).hidden_BTD:
        assert most_diverse(hidden, None, count).tolist() == slow_diverse(hidden, count)
        assert best_reconstructing(hidden, None, count).tolist() == slow_reconstruct(hidden, count)


def test_more_tokens_than_dimensions_are_still_as_many_as_asked_for() -> None:
    hidden = seen(1).hidden_BTD[0]
    flat = hidden[:1].expand(TOKENS, -1)
    for rule in (most_diverse, best_reconstructing):
        for given in (hidden, flat, torch.zeros_like(hidden)):
            kept = rule(given, None, 12).tolist()
            assert len(set(kept)) == 12 and kept == sorted(kept)


def test_what_they_are_for_they_do_better_than_the_control() -> None:
    diverse, others = 0.0, 0.0
    for hidden in seen(20).hidden_BTD:
        unit = torch.nn.functional.normalize(hidden, dim=-1)

        def spread(kept: Tensor, unit: Tensor = unit) -> float:
            return float((1 - unit[kept] @ unit[kept].T).fill_diagonal_(9).min())

        diverse += spread(most_diverse(hidden, None, 5))
        others += spread(RULES["random"](hidden, None, 5))
    assert diverse > 1.3 * others, (diverse, others)


@pytest.mark.parametrize("merge", ["cluster", "none"])
def test_dominant_contextual_is_the_published_mechanism_bit_for_bit(merge: str) -> None:
    given = seen()
    contextual = 3 if merge == "cluster" else 0
    expected = dominant_contextual(
        given.hidden_BTD, given.scores[1], given.metrics[1], dominant=6, contextual=contextual
    )
    kept = selection("dominant_contextual", merge).keep(given)
    assert torch.equal(kept.source_BS, expected.source_BS)
    assert torch.allclose(kept.features_BSD, expected.features_BSD, rtol=0, atol=1e-15)
    assert torch.equal(most_attended(given.hidden_BTD[0], given.scores[1][0], 6), expected.source_BS[0, :6])


def test_cluster_average_counts_the_centre_as_one_of_its_cluster() -> None:
    given = seen(1)
    published = selection("dominant_contextual", "cluster", 6, 2).keep(given)
    averaged = selection("dominant_contextual", "cluster_average", 6, 2).keep(given)
    assert torch.equal(averaged.source_BS, published.source_BS)
    assert torch.equal(averaged.features_BSD[:, :6], published.features_BSD[:, :6])
    hidden, metric = given.hidden_BTD[0], given.metrics[1][0]
    centres = published.source_BS[0, 6:].tolist()
    clusters = {centre: [centre] for centre in centres}
    for token in set(range(TOKENS)) - set(published.source_BS[0].tolist()):
        clusters[max(centres, key=lambda centre: float(metric[token] @ metric[centre]))].append(token)
    for slot, members in enumerate(clusters.values()):
        assert torch.allclose(averaged.features_BSD[0, 6 + slot], hidden[members].mean(dim=0), atol=1e-12)


@pytest.mark.parametrize("merge", ["cluster", "cluster_average", "none"])
@pytest.mark.parametrize("select", ["all", "grid", *RULES])
def test_an_images_slots_are_the_same_bits_whatever_else_is_in_the_batch(select: str, merge: str) -> None:
    given = seen(4)
    rule = selection(select, merge)
    together = rule.keep(given)
    for image in range(4):
        part = slice(image, image + 1)
        alone = rule.keep(
            Seen(given.hidden_BTD[part], {1: given.scores[1][part]}, {1: given.metrics[1][part]})
        )
        assert torch.equal(together.features_BSD[part], alone.features_BSD)
        assert torch.equal(together.source_BS[part], alone.source_BS)
    others = rule.keep(seen(4, seed=1))
    assert not torch.equal(others.features_BSD, together.features_BSD), "negative control: another image"


@pytest.mark.parametrize("select", ["diverse", "reconstruct", "random", "grid"])
def test_rules_without_attention_need_none(select: str) -> None:
    given = seen()
    with_attention = selection(select).keep(given)
    without = selection(select).keep(Seen(given.hidden_BTD, {}, {}))
    assert torch.equal(with_attention.features_BSD, without.features_BSD)
    with pytest.raises(ValueError, match="needs attention scores"):
        selection("dominant_contextual").keep(Seen(given.hidden_BTD, {}, {}))


def test_grid_averages_cells_and_takes_the_place_of_their_middle() -> None:
    side, width = 6, 2
    hidden = torch.arange(side * side * width, dtype=torch.float64).reshape(1, side * side, width)
    kept = pooled(hidden, 9)
    picture = hidden.reshape(side, side, width)
    for row in range(3):
        for column in range(3):
            cell = picture[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].reshape(-1, width)
            assert torch.allclose(kept.features_BSD[0, 3 * row + column], cell.mean(dim=0))
            assert kept.source_BS[0, 3 * row + column] == (2 * row + 1) * side + 2 * column + 1
    assert torch.equal(pooled(hidden, 36).features_BSD, hidden)
    with pytest.raises(ValueError, match="a square of patches, and this tower has 35"):
        pooled(hidden[:, 1:], 9)


def test_grids_hold_no_more_cells_than_asked_for_and_nearly_as_many() -> None:
    for side in (8, 24, 27):
        for count in range(1, side * side + 1):
            rows, columns = cells(count, side)
            assert rows <= columns <= min(side, 2 * rows) and 0.6 * count <= rows * columns <= count
