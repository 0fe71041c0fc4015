"""The deterministic backend: what its vectors and answers are."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import pytest

from pgstack.embedded.modelserver.app import shorten
from pgstack.embedded.modelserver.deterministic import answer, instance
from pgstack.embedded.modelserver.deterministic_vectors import vector, vectors


def test_the_same_text_has_the_same_vector_on_every_machine() -> None:
    assert np.array_equal(vector("hello world", 384), vector("hello world", 384))
    head = [round(float(x), 4) for x in vector("hello world", 384)[:3]]
    assert head == [-0.0635, 0.0237, -0.0789]


def test_vectors_have_length_one_and_differ() -> None:
    texts = ["", " ", "a", "b", "the cat", "The cat", "cat the", "katze \U0001f431", "\x00"]
    vectors = np.array([vector(text, 384) for text in texts])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert len({row.tobytes() for row in vectors}) == len(texts)


def test_texts_that_share_words_are_near_each_other() -> None:
    question = vector("How do I reset a lost password?", 384)
    near = vector("To reset your password, open the settings.", 384)
    far = vector("Invoices are due within thirty days.", 384)
    assert question @ near > 0.4 > 0.2 > question @ far


def test_hash_mode_knows_nothing_of_words() -> None:
    assert abs(vector("the cat", 384, "hash") @ vector("the cats", 384, "hash")) < 0.3


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 2},
                "age": {"type": "integer", "minimum": 18},
                "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2},
                "pet": {"$ref": "#/$defs/pet"},
                "score": {"type": "number"},
                "any": True,
                "no": {"type": ["null", "string"]},
            },
            "required": ["name", "age", "tags", "pet", "score", "any", "no"],
            "$defs": {"pet": {"anyOf": [{"const": "cat"}, {"type": "null"}]}},
        },
        {"type": "array", "items": {"type": "boolean"}, "minItems": 1},
    ],
)
def test_an_instance_follows_its_schema(schema: dict[str, object]) -> None:
    jsonschema.validate(json.loads(json.dumps(instance(schema))), schema)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("hello there", "hello there"),
        ("Sources:\n[1] Cats sleep. They purr.\n[2] Dogs bark.\n\nQuestion: x", "Cats sleep. [1]"),
        ("[1] (title)\nOne line\nof two. More.\n\n[2] Other", "(title) One line of two. [1]"),
        ("[1] no full stop", "no full stop [1]"),
        ("see [1] there", "see [1] there"),
    ],
)
def test_answers_can_be_predicted(prompt: str, said: str) -> None:
    assert answer(prompt) == said


def test_shortened_vectors_have_length_one_again() -> None:
    full = vectors(["hello", "goodbye"], 384)
    heads = shorten(full, 64)
    assert heads.shape == (2, 64)
    assert np.allclose(np.linalg.norm(heads, axis=1), 1)
    assert np.allclose(heads / heads[:, :1], full[:, :64] / full[:, :1])
    assert all(shorten(full, dimensions) is full for dimensions in (None, 0, 384, 1000))
    assert shorten(np.array([[0, 0, 1]], np.float32), 2).tolist() == [[0, 0]]
