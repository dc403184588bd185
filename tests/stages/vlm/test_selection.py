"""Each rule is what its slow transcription says, and looks at one image only."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from stages.vlm.grid import cells, pooled
from stages.vlm.pruning import dominant_contextual
from stages.vlm.seen import Seen
from stages.vlm.selection import (
    RULES,
    Rule,
    TokenSelection,
    best_reconstructing,
    most_attended,
    most_diverse,
)

SIDE, WIDTH = 5, 7
TOKENS = SIDE**2


def seen(seed: int = 0, panels: tuple[tuple[int, int], ...] = ((SIDE, SIDE),)) -> Seen:
    """Return what a tower might have seen of one image, every slot a patch."""
    generator = torch.Generator().manual_seed(seed)
    tokens = sum(rows * columns for rows, columns in panels)
    slots = torch.randn(tokens, WIDTH, generator=generator, dtype=torch.float64)
    scores = torch.rand(tokens, generator=generator, dtype=torch.float64)
    metric = torch.nn.functional.normalize(torch.randn(tokens, 4, generator=generator).double(), dim=-1)
    return Seen(slots, torch.arange(tokens), panels, {1: scores}, {1: metric}, {})


def selection(select: str, merge: str = "cluster", dominant: int = 6, contextual: int = 3) -> Rule:
    return Rule(select=select, merge=merge, layer=1, dominant=dominant, contextual=contextual)  # type: ignore[arg-type]


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
    for other in range(3):
        patches = seen(3 * seed + other).slots_TD
        assert most_diverse(patches, None, count).tolist() == slow_diverse(patches, count)
        assert best_reconstructing(patches, None, count).tolist() == slow_reconstruct(patches, count)


def test_more_tokens_than_dimensions_are_still_as_many_as_asked_for() -> None:
    hidden = seen().slots_TD
    flat = hidden[:1].expand(TOKENS, -1)
    for rule in (most_diverse, best_reconstructing):
        for given in (hidden, flat, torch.zeros_like(hidden)):
            kept = rule(given, None, 12).tolist()
            assert len(set(kept)) == 12 and kept == sorted(kept)


def test_what_they_are_for_they_do_better_than_the_control() -> None:
    diverse, others = 0.0, 0.0
    for hidden in (seen(seed).slots_TD for seed in range(20)):
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
    dominant = 6 if merge == "cluster" else 9
    expected = dominant_contextual(
        given.slots_TD[None],
        given.scores[1][None],
        given.metrics[1][None],
        dominant=dominant,
        contextual=contextual,
    )
    features, source = selection("dominant_contextual", merge).keep(given)
    assert torch.equal(source, expected.source_BS[0])
    assert torch.equal(features, expected.features_BSD[0])
    found = most_attended(given.slots_TD, given.scores[1], dominant)
    assert torch.equal(found, expected.source_BS[0, :dominant])


def slow_dominant_contextual(given: Seen, dominant: int, contextual: int) -> tuple[list[int], list[Tensor]]:
    """Write the published formulas down token by token (methods, section 1, steps 3 to 7)."""
    score, key, hidden = given.scores[1].tolist(), given.metrics[1], given.slots_TD
    best = sorted(range(len(score)), key=lambda token: -score[token])[:dominant]
    kept = sorted(best)
    rest = [token for token in range(len(score)) if token not in kept]
    step = max(1, len(rest) // contextual)
    centres = [rest[number * step] for number in range(contextual)]
    clusters: dict[int, list[int]] = {centre: [] for centre in centres}
    for token in rest:
        if token not in centres:
            alike = [float(sum(key[token][e] * key[centre][e] for e in range(4))) for centre in centres]
            clusters[centres[alike.index(max(alike))]].append(token)
    slots = [hidden[token] for token in kept]
    for centre in centres:
        total = torch.zeros(WIDTH, dtype=torch.float64)
        for token in clusters[centre]:
            total = total + hidden[token]
        slots.append(hidden[centre] + total / max(1, len(clusters[centre])))
    return kept + centres, slots


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("dominant", "contextual"), [(6, 3), (1, 1), (10, 14), (20, 4)])
def test_dominant_contextual_equals_a_literal_transcription(
    seed: int, dominant: int, contextual: int
) -> None:
    given = seen(seed)
    features, source = selection("dominant_contextual", "cluster", dominant, contextual).keep(given)
    expected_source, expected = slow_dominant_contextual(given, dominant, contextual)
    assert source.tolist() == expected_source
    assert torch.allclose(features, torch.stack(expected), rtol=0, atol=1e-12)


def test_cluster_average_counts_the_centre_as_one_of_its_cluster() -> None:
    given = seen()
    published, published_source = selection("dominant_contextual", "cluster", 6, 2).keep(given)
    averaged, source = selection("dominant_contextual", "cluster_average", 6, 2).keep(given)
    assert torch.equal(source, published_source)
    assert torch.equal(averaged[:6], published[:6])
    hidden, metric = given.slots_TD, given.metrics[1]
    centres = source[6:].tolist()
    clusters = {centre: [centre] for centre in centres}
    for token in set(range(TOKENS)) - set(source.tolist()):
        clusters[max(centres, key=lambda centre: float(metric[token] @ metric[centre]))].append(token)
    for slot, members in enumerate(clusters.values()):
        assert torch.allclose(averaged[6 + slot], hidden[members].mean(dim=0), atol=1e-12)


@pytest.mark.parametrize("select", ["diverse", "reconstruct", "random", "grid"])
def test_rules_without_attention_need_none(select: str) -> None:
    given = seen()
    blind = replace(given, scores={}, metrics={})
    assert torch.equal(selection(select).keep(given)[0], selection(select).keep(blind)[0])
    with pytest.raises(ValueError, match="needs attention scores"):
        selection("dominant_contextual").keep(blind)


@pytest.mark.parametrize("select", ["dominant_contextual", "diverse", "reconstruct", "random", "grid"])
def test_marks_are_dropped_and_sources_are_slots(select: str) -> None:
    """The same patches with an end of line behind every row of them give the same features, elsewhere."""
    given = seen()
    patch = torch.tensor([row * (SIDE + 1) + column for row in range(SIDE) for column in range(SIDE)])
    slots = torch.full((SIDE * (SIDE + 1), WIDTH), 1e9, dtype=torch.float64)
    slots[patch] = given.slots_TD
    marked = replace(given, slots_TD=slots, patch_P=patch)
    features, source = selection(select).keep(given)
    marked_features, marked_source = selection(select).keep(marked)
    assert torch.equal(marked_features, features)
    assert torch.equal(marked_source, patch[source])
    everything, _ = selection("all").keep(marked)
    assert torch.equal(everything, slots), "all keeps marks too"


@pytest.mark.parametrize("select", ["dominant_contextual", "diverse", "grid", "random"])
def test_a_small_image_stays_whole(select: str) -> None:
    given = seen(panels=((3, 3),))
    features, source = selection(select, dominant=6, contextual=3).keep(given)
    assert torch.equal(features, given.slots_TD) and source.tolist() == list(range(9))
    features, _ = selection(select, "none", dominant=5, contextual=3).keep(given)
    assert len(features) <= 8


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="dominant >= 1"):
        selection("diverse", dominant=0)


def noisy(select: str, merge: str = "cluster", noise: float = 0.5) -> Rule:
    return replace(selection(select, merge), fusion_noise=noise)


@pytest.mark.parametrize("select", ["dominant_contextual", "diverse", "grid"])
def test_fusion_noise_moves_merged_slots_alone_and_hangs_on_the_image_alone(select: str) -> None:
    given = seen()
    plain, source = selection(select).keep(given)
    moved, moved_source = noisy(select).keep(given)
    whole = 0 if select == "grid" else 6
    assert torch.equal(source, moved_source) and torch.equal(moved[:whole], plain[:whole])
    added = (moved - plain)[whole:]
    assert len(added) > 0 and float(added.abs().min()) > 0
    assert torch.equal(noisy(select).keep(given)[0], moved), "anybody can draw it again"
    other = seen(1)
    assert not torch.equal((noisy(select).keep(other)[0] - selection(select).keep(other)[0])[whole:], added)
    assert torch.equal(noisy(select, "none").keep(given)[0], selection(select, "none").keep(given)[0]) or (
        select == "grid"
    )


def test_fusion_noise_has_the_deviation_that_was_asked_for() -> None:
    given = seen()
    drawn = torch.cat(
        [
            (noisy("grid", noise=2.0).keep(other)[0] - selection("grid").keep(other)[0]).flatten()
            for other in (replace(given, slots_TD=given.slots_TD + shift) for shift in range(300))
        ]
    )
    assert abs(float(drawn.std()) - 2.0) < 0.05 and abs(float(drawn.mean())) < 0.05
    with pytest.raises(ValueError, match="fusion_noise must be 0 or a positive number, got -1"):
        TokenSelection(select="grid", merge="none", fusion_noise=-1.0)


def test_grid_averages_cells_and_takes_the_place_of_their_middle() -> None:
    side, width = 6, 2
    slots = torch.arange(side * side * width, dtype=torch.float64).reshape(side * side, width)
    given = Seen(slots, torch.arange(side * side), ((side, side),), {}, {}, {})
    features, source = pooled(given, slots, 9)
    picture = slots.reshape(side, side, width)
    for row in range(3):
        for column in range(3):
            cell = picture[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].reshape(-1, width)
            assert torch.allclose(features[3 * row + column], cell.mean(dim=0))
            assert source[3 * row + column] == (2 * row + 1) * side + 2 * column + 1
    assert torch.equal(pooled(given, slots, 36)[0], slots)


def test_pictures_of_one_image_share_the_cells_by_their_size() -> None:
    given = seen(panels=((4, 4), (4, 8), (1, 2)))
    features, source = pooled(given, given.slots_TD, 12)
    assert len(features) == len(source) <= 12
    first, second = (source < 16).sum(), ((source >= 16) & (source < 48)).sum()
    assert (int(first), int(second)) == (4, 8) and len(set(source.tolist())) == len(source)


def test_grids_hold_no_more_cells_than_asked_for_and_nearly_as_many() -> None:
    for side in (8, 24, 27):
        for count in range(1, side * side + 1):
            rows, columns = cells(count, side, side)
            assert rows <= columns <= min(side, 2 * rows) and 0.6 * count <= rows * columns <= count
