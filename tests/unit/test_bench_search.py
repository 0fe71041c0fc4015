"""What bench/search.py computes itself: measures of quality, and what a plan reads."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench import _byhand, _judged, _plans


def test_ndcg_is_one_for_the_best_order_and_less_for_any_other() -> None:
    relevant = {"a": 2, "b": 1}
    assert _judged.ndcg(["a", "b", "x"], relevant) == pytest.approx(1)
    late = (1 + 2 / math.log2(3)) / (2 + 1 / math.log2(3))
    assert _judged.ndcg(["b", "a"], relevant) == pytest.approx(late)
    assert _judged.ndcg(["x"] * 10 + ["a"], relevant) == 0


def test_ndcg_at_k_expects_no_more_than_k() -> None:
    relevant = {str(nr): 1 for nr in range(50)}
    assert _judged.ndcg([str(nr) for nr in range(10)], relevant) == pytest.approx(1)


def test_the_interval_holds_the_mean_and_narrows_with_more_questions() -> None:
    rng = np.random.default_rng(1)
    few, many = rng.normal(0.1, 0.3, 50), rng.normal(0.1, 0.3, 5000)
    low, high = _judged.interval(few, draws=500)
    assert low < few.mean() < high
    lower, higher = _judged.interval(many, draws=500)
    assert higher - lower < (high - low) / 5


def test_a_plan_reads_what_stands_anywhere_in_it() -> None:
    plan = {
        "Node Type": "Limit",
        "Plans": [
            {
                "Node Type": "Bitmap Heap Scan",
                "Relation Name": "t",
                "Plans": [{"Node Type": "Bitmap Index Scan", "Index Name": "t_words"}],
            },
            {"Node Type": "Index Scan", "Relation Name": "s", "Index Name": "s_pkey"},
        ],
    }
    assert sorted(_plans.scans(plan)) == [
        "Bitmap Heap Scan t",
        "Bitmap Index Scan t_words",
        "Index Scan s_pkey",
    ]
    assert _plans.relations(plan) == {"t", "s"}


def test_lexemes_are_quoted() -> None:
    assert _byhand.word_parameters(["it", "o'neil"]) == {
        "any_word": "'it' | 'o''neil'",
        "word_0": "'it'",
        "word_1": "'o''neil'",
    }
