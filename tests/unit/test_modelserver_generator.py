"""What llama.cpp is asked for, and what its errors become."""

from __future__ import annotations

from typing import Any

import pytest

from pgstack.embedded.modelserver.backend import ApiError
from pgstack.embedded.modelserver.generator import _error, sampling


def test_options_left_out_have_ollamas_defaults() -> None:
    parameters = sampling({"mirostat": None, "num_gpu": 7})
    assert parameters == {
        "n_predict": -1,
        "temperature": 0.8,
        "top_k": 40,
        "top_p": 0.9,
        "min_p": 0.0,
        "repeat_last_n": 64,
        "repeat_penalty": 1.1,
        "stop": [],
    }


def test_options_get_llama_cpps_names() -> None:
    given = {"num_predict": 5, "num_keep": 2, "seed": 7, "temperature": 0, "stop": "."}
    parameters = sampling(given)
    assert given.keys() - parameters.keys() == {"num_predict", "num_keep"}
    assert (parameters["n_predict"], parameters["n_keep"], parameters["seed"]) == (5, 2, 7)
    assert parameters["temperature"] == 0
    assert parameters["stop"] == ["."]


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": "hot"},
        {"seed": True},
        {"top_p": float("nan")},
        {"num_predict": [1]},
        {"stop": 7},
        {"stop": ["a", 7]},
    ],
)
def test_an_option_of_a_wrong_type_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match=f'option "{next(iter(options))}" must be') as caught:
        sampling(options)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("theirs", "status", "message"),
    [
        ({"type": "exceed_context_size_error", "code": 400}, 400, "the input length exceeds"),
        ({"code": 400, "message": "bad grammar"}, 400, "bad grammar"),
        ({"code": 501, "message": "no"}, 500, "no"),
        ({}, 500, ""),
    ],
)
def test_their_errors_are_said_in_ollamas_words(
    theirs: dict[str, Any], status: int, message: str
) -> None:
    error = _error(theirs)
    assert error.status == status
    assert message in error.message
