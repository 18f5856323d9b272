"""Both schedules, epoch by epoch."""

import pytest

from spectralgru.training.schedule import LearningRate
from spectralgru.training.settings import Schedule


def test_decay_keeps_the_first_rate_then_divides_every_epoch():
    rate = LearningRate(Schedule("decay", 10, 1.1), 1.0)
    seen = []
    for _ in range(14):
        seen.append(rate.rate)
        assert rate.finish_epoch(5.0)
    assert seen[:10] == [1.0] * 10
    assert seen[10:] == pytest.approx([1.1**-k for k in (1, 2, 3, 4)])


def test_plateau_divides_after_epochs_without_improvement_and_ends_below_the_minimum():
    rate = LearningRate(Schedule("plateau", 3, 10.0, 5e-4), 0.1)
    losses = [5.0, 4.0, 4.0, 4.1, 3.9, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]
    seen = []
    for loss in losses:
        seen.append(rate.rate)
        if not rate.finish_epoch(loss):
            break
    # Two epochs without improvement change nothing; three divide; the third division falls below the minimum.
    assert seen == pytest.approx([0.1] * 8 + [0.01] * 3 + [0.001] * 3)


def test_plateau_takes_no_equal_loss_for_an_improvement():
    rate = LearningRate(Schedule("plateau", 2, 2.0), 1.0)
    for _ in range(3):
        rate.finish_epoch(1.0)
    assert rate.rate == 0.5
