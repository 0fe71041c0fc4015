"""Metrics agree with pytrec_eval; intervals and tests with what statistics says they are."""

from __future__ import annotations

import json
import math
import os
import random
import statistics
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytrec_eval

from tests.sql.evaluating import Judged, Ranked, make_run, make_set, metrics, values

Conn = psycopg.Connection[Any]

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("PGSTACK_DATA_DIR", ROOT.parent / "shared" / "data")) / "retrieval"
SETS = ["cacm", "cosqa-dev", "cranfield", "scifact", "squad2-dev-half", "xquad-4lang"]

# Ours by the name of trec_eval's; it knows no MRR@10, so that one gets a run of ten.
NAMES = {
    "ndcg@10": "ndcg_cut_10",
    "map": "map",
    "recall@10": "recall_10",
    "recall@100": "recall_100",
    "precision@10": "P_10",
    "precision@100": "P_100",
}


def by_pytrec_eval(judged: Judged, ranked: Ranked) -> dict[str, dict[str, float]]:
    """metric -> query -> value, 0 for queries without results, which pytrec_eval leaves out."""
    wanted = {"ndcg_cut.10", "map", "recall.10,100", "P.10,100", "recip_rank"}
    judge = pytrec_eval.RelevanceEvaluator({q: dict(docs) for q, docs in judged.items()}, wanted)

    def scored(depth: int) -> dict[str, dict[str, float]]:
        # Strictly falling scores: ties are broken by the product, not by the oracle.
        run = {q: {d: -float(i) for i, d in enumerate(docs[:depth])} for q, docs in ranked.items()}
        return dict(judge.evaluate({q: docs for q, docs in run.items() if docs}))

    whole, ten = scored(100), scored(10)
    found = {
        ours: {q: whole.get(q, {}).get(theirs, 0.0) for q in judged}
        for ours, theirs in NAMES.items()
    }
    found["mrr@10"] = {q: ten.get(q, {}).get("recip_rank", 0.0) for q in judged}
    return found


def assert_agrees(conn: Conn, run: int, judged: Judged, ranked: Ranked) -> None:
    ours, theirs = values(conn, run), by_pytrec_eval(judged, ranked)
    assert ours.keys() == theirs.keys()
    for metric, by_query in theirs.items():
        assert ours[metric].keys() == by_query.keys()
        far = {
            q: (ours[metric][q], v) for q, v in by_query.items() if abs(ours[metric][q] - v) > 1e-6
        }
        assert far == {}, metric
        mean, _, _, queries = metrics(conn, run)[metric]
        assert mean == pytest.approx(statistics.fmean(by_query.values()), abs=1e-6)
        assert queries == len(judged)


def perturbed(judged: Judged, documents: list[str], dice: random.Random) -> Ranked:
    """Rankings in which relevant documents stand at all depths, or are missing."""
    ranked = {}
    for query, docs in judged.items():
        found = dice.sample(documents, min(len(documents), dice.choice([0, 3, 10, 60, 130])))
        for doc in docs:
            if found and doc not in found and dice.random() < 0.7:
                found[min(int(dice.expovariate(0.1)), len(found) - 1)] = doc
        ranked[query] = list(dict.fromkeys(found))
    return ranked


@pytest.mark.parametrize("seed", range(4))
def test_random_runs_with_grades(conn: Conn, seed: int) -> None:
    dice = random.Random(seed)
    documents = [f"d{i}" for i in range(200)]
    judged = {
        f"q{i}": {
            doc: dice.choice([-2, -1, 0, 0, 1, 1, 2, 3, 7])
            for doc in dice.sample(documents, dice.randint(1, 40))
        }
        for i in range(80)
    }
    ranked = perturbed(judged, documents, dice)
    assert_agrees(conn, make_run(conn, make_set(conn, "s", judged), ranked), judged, ranked)


@pytest.mark.parametrize("name", SETS)
def test_the_sets_at_hand(conn: Conn, name: str) -> None:
    if not (DATA / name).is_dir():
        pytest.skip(f"no {DATA / name}: set PGSTACK_DATA_DIR")
    judged: dict[str, dict[str, int]] = {}
    for line in (DATA / name / "qrels.tsv").read_text().splitlines()[1:]:
        query, doc, grade = line.split("\t")
        judged.setdefault(query, {})[doc] = int(grade)
    lines = (DATA / name / "corpus.jsonl").read_text().splitlines()
    ranked = perturbed(judged, [json.loads(line)["_id"] for line in lines], random.Random(name))
    assert_agrees(conn, make_run(conn, make_set(conn, name, judged), ranked), judged, ranked)


def test_a_short_run_is_scored_as_deep_as_it_went(conn: Conn) -> None:
    judged = {"q": {"a": 1, "b": 1}}
    run = make_run(conn, make_set(conn, "s", judged), {"q": ["x", "a", "b"]}, k=2)
    found = {metric: value for metric, (value, *_) in metrics(conn, run).items()}
    assert list(found) == ["ndcg@2", "mrr@2", "map", "recall@2", "precision@2"]
    assert found["mrr@2"] == found["precision@2"] == found["recall@2"] == 0.5
    assert found["map"] == 0.25


def test_a_query_with_nothing_relevant_counts_as_zero(conn: Conn) -> None:
    judged = {"q": {"a": 1}, "hopeless": {"a": 0}}
    run = make_run(conn, make_set(conn, "s", judged), {"q": ["a"], "hopeless": ["a"]})
    assert metrics(conn, run)["ndcg@10"][0] == 0.5
    assert metrics(conn, run)["map"][3] == 2


# ---------------------------------------------------------------------- how sure it is


def interval(conn: Conn, samples: list[float], seed: int = 1) -> tuple[float, float]:
    row = conn.execute("select _pgstack.bootstrap(%s::float8[], %s)", (samples, seed)).fetchone()
    assert row is not None
    return row[0][0], row[0][1]


def p_value(conn: Conn, differences: list[float], seed: int = 1) -> float:
    query = "select _pgstack.randomisation_p(%s::float8[], %s)"
    row = conn.execute(query, (differences, seed)).fetchone()
    assert row is not None
    return float(row[0])


@pytest.mark.parametrize("n", [30, 301, 2000])
def test_the_interval_is_the_one_of_the_normal_law(conn: Conn, n: int) -> None:
    """For means of many values the bootstrap comes close to mean -+ 1.96 standard errors."""
    dice = random.Random(n)
    samples = [dice.random() for _ in range(n)]
    error = statistics.pstdev(samples) / math.sqrt(n)
    mean = statistics.fmean(samples)
    low, high = interval(conn, samples)
    assert low == pytest.approx(mean - 1.96 * error, abs=0.25 * error)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.25 * error)


def test_an_interval_is_the_same_each_time_and_other_with_another_seed(conn: Conn) -> None:

    samples = [random.Random(i).random() for i in range(50)]
    assert interval(conn, samples) == interval(conn, samples)
    assert interval(conn, samples) != interval(conn, samples, seed=2)
    assert interval(conn, [0.25] * 9) == (0.25, 0.25)


def test_every_query_is_drawn_as_often_as_any_other(conn: Conn) -> None:
    """A value that one query alone has: each of them must move the interval alike."""
    n = 9
    means = []
    for i in range(n):
        low, high = interval(conn, [float(j == i) for j in range(n)])
        means.append((low, high))
    assert all(0 <= low <= 1 / n <= high <= 0.5 for low, high in means)
    assert len({high for _, high in means}) == 1


def exact_p(differences: list[float]) -> float:
    """The share of all sign patterns that give as large a sum."""
    observed = abs(sum(differences)) * (1 - 1e-9)
    n = len(differences)
    sums = (
        abs(sum(d if bits >> i & 1 else -d for i, d in enumerate(differences)))
        for bits in range(2**n)
    )
    return sum(value >= observed for value in sums) / 2**n


@pytest.mark.parametrize("seed", range(5))
def test_the_p_value_is_that_of_all_sign_patterns(conn: Conn, seed: int) -> None:
    dice = random.Random(seed)
    differences = [dice.gauss(0.2 * seed, 1) for _ in range(13)]
    exact = exact_p(differences)
    close = 4 * math.sqrt(exact * (1 - exact) / 10_000) + 2e-4
    assert p_value(conn, [*differences, 0.0, 0.0]) == pytest.approx(exact, abs=close)


def test_no_difference_is_no_evidence(conn: Conn) -> None:
    assert p_value(conn, [0.0] * 10) == 1
    assert p_value(conn, []) == 1
    assert p_value(conn, [0.5, -0.5]) == 1


def test_the_p_value_is_never_zero(conn: Conn) -> None:
    assert p_value(conn, [1.0] * 100) == pytest.approx(1 / 10_001)


def test_five_thousand_queries_take_seconds(conn: Conn) -> None:
    dice = random.Random(0)
    samples = [dice.random() for _ in range(5000)]
    began = time.monotonic()
    interval(conn, samples)
    p_value(conn, [value - 0.5 for value in samples])
    assert time.monotonic() - began < 30
