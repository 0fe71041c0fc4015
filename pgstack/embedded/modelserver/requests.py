"""Bodies of the API's requests, checked: what may be sent, and what is said when it is wrong.

Types are strict, as in Ollama: ``"stream": "yes"`` is a 400.  Unknown fields are ignored.
Every failure is an :class:`ApiError` with status 400 whose message never quotes a prompt.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from pgstack.embedded.modelserver.backend import ApiError

_FOREVER = 100 * 365 * 86400.0  # seconds; more than that is "never"
_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)")


def parse_keep_alive(value: object) -> float | None:
    """Return seconds: a number, a Go duration such as ``"1h30m"``, or a number in a string.

    Negative means never unload (``math.inf``); None stays None.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("keep_alive must be a number of seconds or a duration")
    seconds = _go_duration(value) if isinstance(value, str) else float(value)
    if math.isnan(seconds):
        raise ValueError("keep_alive must be a number of seconds or a duration")
    return math.inf if seconds < 0 or seconds > _FOREVER else seconds


def _go_duration(text: str) -> float:
    """Return the seconds of a Go duration, or of a bare number."""
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    parts = _DURATION.findall(digits)
    if parts and "".join(number + unit for number, unit in parts) == digits:
        return sign * sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
    try:
        return float(text)
    except ValueError:
        raise ValueError(f'time: invalid duration "{text[:40]}"') from None


def _string_list(value: object) -> list[str]:
    """Return ``input`` as a list of texts; an empty string is no text, as in Ollama."""
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return value
    raise ValueError("invalid input type")


KeepAlive = Annotated[float | None, BeforeValidator(parse_keep_alive)]
Options = Annotated[dict[str, Any], BeforeValidator(lambda value: {} if value is None else value)]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", protected_namespaces=())


class Named(_Body):
    """A request about one model; ``name`` is the old spelling of ``model``."""

    model: str = ""
    name: str = ""
    stream: bool | None = None
    verbose: bool | None = None

    @property
    def wanted(self) -> str:
        """Return the model's name in whichever field it came."""
        return self.model or self.name


class EmbedBody(_Body):
    """``POST /api/embed``."""

    model: str = ""
    input: Annotated[list[str], BeforeValidator(_string_list)] = []
    truncate: bool | None = None
    dimensions: Annotated[int, Field(ge=0)] | None = None
    keep_alive: KeepAlive = None
    options: Options = {}


class LegacyEmbedBody(_Body):
    """``POST /api/embeddings``."""

    model: str = ""
    prompt: str = ""
    keep_alive: KeepAlive = None
    options: Options = {}


class Message(_Body):
    """One turn of a chat."""

    role: str
    content: str = ""
    images: list[str] | None = None
    tool_calls: list[dict[str, Any]] | None = None


class _TextBody(_Body):
    model: str = ""
    stream: bool | None = None
    format: str | bool | dict[str, Any] | None = None
    keep_alive: KeepAlive = None
    options: Options = {}
    think: bool | str | None = None


class GenerateBody(_TextBody):
    """``POST /api/generate``."""

    prompt: str = ""
    suffix: str = ""
    system: str = ""
    template: str = ""
    raw: bool | None = None
    images: list[str] | None = None
    context: list[int] | None = None


class ChatBody(_TextBody):
    """``POST /api/chat``."""

    messages: list[Message] | None = None
    tools: list[dict[str, Any]] | None = None


def parse[T: _Body](cls: type[T], raw: bytes) -> T:
    """Return the body of that class, or raise a 400 that names the field at fault."""
    if not raw.strip():
        raise ApiError(400, "missing request body")
    try:
        body = from_json(raw)
    except ValueError as exc:  # its text holds a position, nothing of the body
        raise ApiError(400, f"invalid JSON: {exc}") from None
    if not isinstance(body, dict):
        raise ApiError(400, "the request body must be a JSON object")
    try:
        return cls.model_validate(body)
    except ValidationError as exc:
        raise ApiError(400, _first_error(exc)) from None


def _first_error(exc: ValidationError) -> str:
    """Return one line for the first field that is wrong, without its value."""
    error = exc.errors(include_input=False, include_url=False)[0]
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    where = ".".join(str(part) for part in error["loc"])
    return f"invalid {where}: {error['msg'][0].lower()}{error['msg'][1:]}"
