"""What the HTTP layer (``app.py``) asks of the thing that computes.

Two backends exist: ``engine.Engine`` runs real models, ``deterministic.Deterministic``
pretends, for tests.  Both are called from one asyncio event loop and must not block it.

Units: durations in nanoseconds, as Ollama reports them; sizes in bytes; ``keep_alive`` in
seconds, ``None`` for the model's default and ``math.inf`` for "never unload".
Cancelling the awaiting task, or closing the iterator, stops the computation.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

type Vectors = npt.NDArray[np.float32]


class ApiError(Exception):
    """Something the client is told: an HTTP status and Ollama's ``{"error": message}``."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def not_found(model: str) -> ApiError:
    """Return Ollama's error for a model that is not installed."""
    return ApiError(404, f"model '{model}' not found")


def busy() -> ApiError:
    """Return Ollama's error for a full queue (its two spaces included)."""
    return ApiError(503, "server busy, please try again.  maximum pending requests exceeded")


@dataclass(frozen=True)
class Description:
    """An installed model, as ``/api/tags`` and ``/api/show`` describe it."""

    name: str
    digest: str
    size: int
    family: str
    format: str
    parameter_size: str
    quantization: str
    context_length: int
    capabilities: tuple[str, ...]
    modified_at: datetime
    licence: str = ""
    template: str = ""
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """A loaded model, as ``/api/ps`` describes it.  ``expires_at`` None: never."""

    model: Description
    size: int
    expires_at: datetime | None


@dataclass(frozen=True)
class Embeddings:
    """Vectors of length 1, one a row in the order of the inputs, and what they cost."""

    vectors: Vectors
    prompt_tokens: int
    load_ns: int


@dataclass(frozen=True)
class TextRequest:
    """A completion to write: ``prompt`` is raw text, or ``messages`` go through the template.

    ``schema`` is the JSON schema the answer must follow, ``{"type": "object"}`` for plain
    ``format: "json"``; ``options`` are Ollama's.
    """

    model: str
    messages: Sequence[dict[str, Any]] = ()
    prompt: str | None = None
    schema: dict[str, Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    keep_alive: float | None = None


@dataclass(frozen=True)
class Piece:
    """Some more text of an answer."""

    text: str


@dataclass(frozen=True)
class Finish:
    """The end of an answer: ``reason`` is "stop" or "length"; the rest are costs."""

    reason: str
    load_ns: int = 0
    prompt_tokens: int = 0
    prompt_ns: int = 0
    tokens: int = 0
    eval_ns: int = 0


class Backend(Protocol):
    """The operations behind the API."""

    def installed(self) -> list[Description]:
        """Return every model that can be used now."""

    def describe(self, name: str) -> Description:
        """Return one installed model, or raise the 404 of :func:`not_found`."""

    def running(self) -> list[Running]:
        """Return every loaded model."""

    async def load(self, name: str, keep_alive: float | None) -> None:
        """Load a model, or unload it when ``keep_alive`` is 0."""

    async def embed(
        self, name: str, texts: list[str], *, truncate: bool, keep_alive: float | None
    ) -> Embeddings:
        """Return one vector a text."""

    def write(self, request: TextRequest) -> AsyncGenerator[Piece | Finish]:
        """Write an answer: pieces, then one finish."""

    def pull(self, name: str) -> AsyncGenerator[dict[str, Any]]:
        """Install a model; yields Ollama's progress objects up to and without "success"."""

    async def delete(self, name: str) -> None:
        """Remove an installed model from the disk."""

    async def close(self) -> None:
        """Stop everything and free the memory."""
