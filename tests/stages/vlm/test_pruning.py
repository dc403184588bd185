"""Pruning follows the formulas and looks at one image only."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.vlm.pruning import class_token_scores, dominant_contextual, keep_all, similarity_metric


def slow_reference(hidden, scores, metric, dominant, contextual):
    """Mechanism 1, word for word, one image, with plain loops."""
    best = sorted(sorted(range(len(scores)), key=lambda patch: -scores[patch])[:dominant])
    rest = [patch for patch in range(len(scores)) if patch not in best]
    step = max(1, len(rest) // contextual)
    centres = [rest[index * step] for index in range(contextual)]
    clusters = {centre: [] for centre in centres}
    for patch in rest:
        if patch not in centres:
            clusters[max(centres, key=lambda centre: float(metric[patch] @ metric[centre]))].append(patch)
    fused = [
        hidden[centre] + (torch.stack([hidden[patch] for patch in members]).mean(dim=0) if members else 0)
        for centre, members in clusters.items()
    ]
    return torch.stack([*(hidden[patch] for patch in best), *fused]), best + centres


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), dominant=st.integers(1, 10), contextual=st.integers(1, 5))
def test_it_equals_the_slow_reference(seed, dominant, contextual):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(3, 16, 5, generator=generator, dtype=torch.float64)
    scores = torch.rand(3, 16, generator=generator, dtype=torch.float64)
    metric = similarity_metric(torch.randn(3, 16, 8, generator=generator, dtype=torch.float64), heads=2)
    kept = dominant_contextual(hidden, scores, metric, dominant=dominant, contextual=contextual)
    for image in range(3):
        features, source = slow_reference(hidden[image], scores[image], metric[image], dominant, contextual)
        assert kept.source_BS[image].tolist() == source
        assert torch.allclose(kept.features_BSD[image], features, atol=1e-12)


def test_an_images_slots_do_not_depend_on_its_neighbours():
    hidden, scores, metric = torch.randn(4, 16, 5), torch.rand(4, 16), torch.randn(4, 16, 3)
    together = dominant_contextual(hidden, scores, metric, dominant=4, contextual=2)
    alone = dominant_contextual(hidden[2:3], scores[2:3], metric[2:3], dominant=4, contextual=2)
    assert torch.equal(together.source_BS[2], alone.source_BS[0])


def test_keeping_every_token_as_dominant_is_keeping_all():
    hidden = torch.randn(2, 6, 3)
    kept = dominant_contextual(hidden, torch.rand(2, 6), torch.randn(2, 6, 2), dominant=6, contextual=0)
    assert torch.equal(kept.features_BSD, keep_all(hidden).features_BSD)
    assert torch.equal(kept.source_BS, keep_all(hidden).source_BS)


def test_the_score_is_the_attention_of_the_class_token_averaged_over_heads():
    attention = torch.rand(1, 2, 4, 4)
    expected = (attention[0, 0, 0, 1:] + attention[0, 1, 0, 1:]) / 2
    assert torch.allclose(class_token_scores(attention)[0], expected)


@pytest.mark.parametrize(("dominant", "contextual"), [(0, 1), (5, -1), (5, 2)])
def test_a_budget_that_cannot_be_kept_is_refused(dominant, contextual):
    with pytest.raises(ValueError, match="at most 6 together"):
        dominant_contextual(
            torch.randn(1, 6, 2),
            torch.rand(1, 6),
            torch.rand(1, 6, 2),
            dominant=dominant,
            contextual=contextual,
        )
