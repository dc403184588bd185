"""Attacks give what their definitions give, on data where the answer is known."""

import math

import numpy as np
import pytest

from benchmarks.attacks import area_under_curve, exposure, likelihood_ratio_scores, true_positive_rate

IS_MEMBER = np.arange(4000) < 2000


def test_scores_that_tell_nothing_and_everything() -> None:
    dice = np.random.default_rng(0)
    blind, seeing = dice.standard_normal(4000), IS_MEMBER + 0.0
    assert area_under_curve(blind, IS_MEMBER) == pytest.approx(0.5, abs=0.03)
    assert true_positive_rate(blind, IS_MEMBER, 0.01) == pytest.approx(0.01, abs=0.01)
    assert area_under_curve(seeing, IS_MEMBER) == 1 and true_positive_rate(seeing, IS_MEMBER, 0.01) == 1
    assert area_under_curve(np.zeros(4000), IS_MEMBER) == 0.5, "ties tell nothing"
    assert true_positive_rate(np.zeros(4000), IS_MEMBER, 0.01) == 0


def test_two_gaussians_one_deviation_apart() -> None:
    scores = IS_MEMBER + np.random.default_rng(1).standard_normal(4000)
    assert area_under_curve(scores, IS_MEMBER) == pytest.approx(0.760, abs=0.02)  # Phi(1 / sqrt 2)
    assert true_positive_rate(scores, IS_MEMBER, 0.01) == pytest.approx(
        0.0924, abs=0.04
    )  # 1 - Phi(2.326 - 1)


def test_a_likelihood_ratio_sees_what_a_loss_cannot() -> None:
    """Units differ in how hard they are by far more than training moves them; shadows know how hard."""
    dice = np.random.default_rng(2)
    hard = 5 * dice.standard_normal(4000)
    losses = hard - 1.0 * IS_MEMBER + 0.3 * dice.standard_normal(4000)
    shadows = hard + 0.3 * dice.standard_normal((4, 4000))
    assert area_under_curve(-losses, IS_MEMBER) < 0.6
    assert area_under_curve(likelihood_ratio_scores(losses, shadows), IS_MEMBER) > 0.95


def test_exposure_is_the_bits_by_which_a_rank_is_better_than_the_last() -> None:
    others = np.arange(1.0, 128.0)
    assert exposure(0.0, others) == 7 and exposure(200.0, others) == 0
    assert exposure(64.5, others) == pytest.approx(math.log2(128 / 65))
