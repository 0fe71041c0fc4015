"""What went wrong in a call of a model server, as an error of ours that says whose fault it is.

Data in and out
    in     the exception that ``httpx``, ``ollama`` or ``pydantic`` raised, and what was called
    out    a :class:`~pgstack.errors.PgstackError` with ``fault``, and with ``retry_after`` in
           seconds if the server named a time

Nothing here calls anything.  Importing this is cheap.
"""

from __future__ import annotations

import math
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from pgstack.errors import (
    BadAnswer,
    Fault,
    ModelNotFound,
    ModelServerError,
    PgstackError,
    UsageError,
)

if TYPE_CHECKING:
    import httpx

# What a status says of whose fault it is; any other 4xx is the input's, any other unclear.
# So are 502 and 504: behind a proxy, a text that ends the server's process looks like that.
_BUSY_STATUS = frozenset({425, 429})
_SERVER_STATUS = frozenset({408, 503})
_SETUP_STATUS = frozenset({401, 402, 403, 404, 405, 407, 410, 501})


def bad_address(host: str) -> UsageError:
    """Return the error for an address that is none."""
    return UsageError(
        f"{host!r} is no address of a model server",
        hint="OLLAMA_HOST=http://127.0.0.1:11434, or host:port, or host",
    )


def ours(exc: Exception, url: str, model: str, timeout: float) -> PgstackError:
    """Return our error for whatever the packages underneath raised."""
    import httpx
    import ollama
    from pydantic import ValidationError

    if isinstance(exc.__context__, httpx.HTTPStatusError):
        exc = exc.__context__  # the package wraps it, and leaves out the headers
    match exc:
        case httpx.HTTPStatusError():
            return _refused(exc.response, url, model)
        case ollama.ResponseError():
            return _said_no(exc.status_code, str(exc.error), url, model)
        case ValidationError() if not exc.title.endswith("Response"):
            first = exc.errors(include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            return UsageError(f"the request's {where} is wrong: {first['msg']}")
        case httpx.UnsupportedProtocol() | httpx.InvalidURL() | httpx.TooManyRedirects():
            return bad_address(url)
        case httpx.ConnectTimeout() | httpx.ConnectError() | ConnectionError():
            unreachable = ModelServerError(
                f"cannot reach the model server at {url}",
                hint="pgstack status   # or: pgstack up; OLLAMA_HOST names another server",
            )
            return _blamed(unreachable, Fault.SERVER)
    return _blamed(_broken(exc, url, timeout), Fault.UNCLEAR)


def _broken(exc: Exception, url: str, timeout: float) -> PgstackError:
    """Return our error for a call that began and did not end in an answer."""
    import httpx

    match exc:
        case httpx.TimeoutException():
            return ModelServerError(
                f"the model server at {url} did not answer within {timeout:g} s"
            )
        case httpx.HTTPError():
            return ModelServerError(
                f"the connection to the model server at {url} broke: {type(exc).__name__}"
            )
        case ValueError() | TypeError() | KeyError():
            return BadAnswer(
                f"the model server at {url} answered something that is not Ollama's JSON",
                hint="is a proxy, or something else than Ollama, in between?",
            )
    return ModelServerError(f"the model server at {url} failed: {type(exc).__name__}: {exc}")


def _refused(response: httpx.Response, url: str, model: str) -> PgstackError:
    """Return our error for an answer with an HTTP status that is none of success."""
    try:
        text = str(response.json()["error"])
    except (ValueError, TypeError, KeyError):
        text = response.text
    error = _said_no(response.status_code, text, url, model)
    error.retry_after = _retry_after(response.headers.get("retry-after", ""))
    return error


def _said_no(status: int, message: str, url: str, model: str) -> PgstackError:
    """Return our error for a refusal; an error line inside a stream has status -1."""
    text = " ".join(message.split())[:500]
    if status == 404 and "model" in text:
        return ModelNotFound(
            f"the model server at {url} has no model {model!r}", hint=f"pgstack model pull {model}"
        )
    if "file does not exist" in text:  # Ollama's words for an unknown name in a pull
        return ModelNotFound(f"there is no model {model!r} to pull", hint="pgstack model list")
    fault = _fault(status, text)
    if text.startswith("<") or not text:
        text = "a web page" if text else "no reason given"
    label = "" if status < 0 else f" (HTTP {status})"
    return _blamed(ModelServerError(f"the model server said: {text}{label}"), fault)


def _fault(status: int, text: str) -> Fault:
    """Return whose fault an HTTP status says it is."""
    if status in _BUSY_STATUS:
        return Fault.BUSY
    if status in _SERVER_STATUS:
        return Fault.SERVER
    # A 400 as well is said of a model that makes no embeddings.
    if status in _SETUP_STATUS or (status == 400 and "does not support" in text):
        return Fault.SETUP
    return Fault.INPUT if 400 <= status < 500 else Fault.UNCLEAR


def _retry_after(header: str) -> float | None:
    """Return the seconds that ``Retry-After`` asks for: a number of them, or a date."""
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _blamed[E: PgstackError](error: E, fault: Fault) -> E:
    """Say whose fault an error is."""
    error.fault = fault
    return error
