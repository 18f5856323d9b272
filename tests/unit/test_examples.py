"""The examples do what they say."""

import importlib.util
import math
from pathlib import Path

import pytest

import tiny  # noqa: F401  one thread

EXAMPLE = Path(__file__).parents[2] / "examples/exploding_gru.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("exploding_gru", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_gru_explodes_without_the_constraint(example):
    for seed in (0, 1):
        steps, _, largest, _ = example.train(seed, None, 200)
        assert steps < 200  # a gradient was no number any more
        assert largest == math.inf


def test_it_stays_finite_and_learns_with_it(example):
    steps, error, largest, sigma = example.train(1, 0.5, 700)
    assert steps == 700
    assert largest < 20
    assert sigma <= 1.5 * (1 + 1e-6)
    assert error < 0.05  # 0.167 for always answering 1
