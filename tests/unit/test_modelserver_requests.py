"""Bodies of requests: what passes, and what is said of what does not."""

from __future__ import annotations

import math

import pytest

from pgstack.embedded.modelserver.backend import ApiError
from pgstack.embedded.modelserver.requests import (
    ChatBody,
    EmbedBody,
    GenerateBody,
    parse,
    parse_keep_alive,
)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        (0, 0.0),
        ("0", 0.0),
        (90, 90.0),
        ("90", 90.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1.5s", 1.5),
        ("300ms", 0.3),
        (-1, math.inf),
        ("-1", math.inf),
        ("-1m", math.inf),
        (1e300, math.inf),
    ],
)
def test_keep_alive_takes_seconds_and_durations(value: object, seconds: float | None) -> None:
    assert parse_keep_alive(value) == seconds


@pytest.mark.parametrize("value", ["soon", "", "5 m", "5x", True, [], "nan", float("nan"), "m5"])
def test_keep_alive_refuses_the_rest(value: object) -> None:
    with pytest.raises(ValueError, match=r"invalid duration|keep_alive must be"):
        parse_keep_alive(value)


@pytest.mark.parametrize(
    ("value", "texts"),
    [('"a"', ["a"]), ('["a", ""]', ["a", ""]), ('""', []), ("[]", []), ("null", [])],
)
def test_input_is_a_text_or_a_list_of_them(value: str, texts: list[str]) -> None:
    assert parse(EmbedBody, b'{"model": "m", "input": %s}' % value.encode()).input == texts


@pytest.mark.parametrize(
    ("cls", "body", "message"),
    [
        (EmbedBody, "", "missing request body"),
        (EmbedBody, "  ", "missing request body"),
        (EmbedBody, "{", "invalid JSON"),
        (EmbedBody, "[" * 100_000, "invalid JSON"),
        (EmbedBody, '"text"', "must be a JSON object"),
        (EmbedBody, "[1]", "must be a JSON object"),
        (EmbedBody, '{"model": 7}', "invalid model"),
        (EmbedBody, '{"input": 7}', "invalid input type"),
        (EmbedBody, '{"input": ["a", 7]}', "invalid input type"),
        (EmbedBody, '{"input": [["a"]]}', "invalid input type"),
        (EmbedBody, '{"dimensions": -1}', "invalid dimensions"),
        (EmbedBody, '{"dimensions": "many"}', "invalid dimensions"),
        (EmbedBody, '{"truncate": "yes"}', "invalid truncate"),
        (EmbedBody, '{"keep_alive": "soon"}', 'time: invalid duration "soon"'),
        (EmbedBody, '{"options": []}', "invalid options"),
        (EmbedBody, '{"input": "\\ud800"}', "invalid JSON"),
        (GenerateBody, '{"stream": 1}', "invalid stream"),
        (GenerateBody, '{"prompt": ["a"]}', "invalid prompt"),
        (ChatBody, '{"messages": "hi"}', "invalid messages"),
        (ChatBody, '{"messages": [{"content": "hi"}]}', "invalid messages.0.role"),
        (ChatBody, '{"messages": [{"role": "user", "content": 7}]}', "invalid messages.0.content"),
    ],
)
def test_what_is_wrong_is_a_400_that_names_it(cls: type, body: str, message: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse(cls, body.encode())
    assert caught.value.status == 400
    assert message in caught.value.message


def test_an_error_never_repeats_the_prompt() -> None:
    with pytest.raises(ApiError) as caught:
        parse(EmbedBody, b'{"input": ["my secret", 7], "model": ["my secret"]}')
    assert "secret" not in caught.value.message


def test_unknown_fields_are_ignored() -> None:
    assert parse(EmbedBody, b'{"model": "m", "input": "a", "new": 1}').model == "m"
