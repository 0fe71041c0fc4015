"""Files at URLs: http and https, and object stores (s3, gs, az).

Data in and out
    url        ``https://host/path``, ``s3://bucket/key``, ``gs://bucket/key``, ``az://container/key``
    into       a binary file open for writing; what came before a failure stays in it
    max_bytes  int; more than that is refused, as announced or as it comes, unpacked
    returns    :class:`Fetched`; :func:`list_objects` yields :class:`RemoteObject`

Keys of object stores are taken as they are written, without percent signs undone, as other tools
for them do.  Their credentials come from the usual environment (``AWS_ACCESS_KEY_ID``,
``AWS_SECRET_ACCESS_KEY``, ``AWS_SESSION_TOKEN``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``,
``AWS_SKIP_SIGNATURE=true`` for public buckets; ``GOOGLE_APPLICATION_CREDENTIALS``;
``AZURE_STORAGE_ACCOUNT_NAME`` and ``AZURE_STORAGE_ACCOUNT_KEY``).

No secret leaves this module: errors name a URL as :func:`public_url` writes it, and where a
redirect went only by its host.

Raises
    NotModified  the file is still the one that the caller knows
    RemoteError  there is no such file, no access, it is too large, the answer broke
    Unreachable  nobody answers at that address
    UsageError   an address that makes no sense, or of a kind that is not read
"""

from __future__ import annotations

import os
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime, parsedate_to_datetime
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from pgstack import __version__
from pgstack.errors import PgstackError, RemoteError, Unreachable, UsageError
from pgstack.models import is_loopback

if TYPE_CHECKING:
    import httpx

WEB = ("http", "https")
STORES = ("s3", "gs", "az")
MAX_REDIRECTS = 5
CONNECT_SECONDS = 10.0
SILENT_SECONDS = 30.0  # without a byte
WHOLE_SECONDS = 3600.0  # for one file, however steadily it comes
BLOCK_BYTES = 1 << 18

_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL for a "
    "server that is not Amazon's, or AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to a file of credentials",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}

type Done = Callable[[int, int | None], None]  # bytes so far, of how many (None: not announced)


class NotModified(Exception):
    """The file has not changed since the version that the caller named."""


@dataclass(frozen=True)
class Fetched:
    """A file that was fetched.

    ``name``        what it would be called on a disk, for people and to tell its format
    ``media_type``  what the server says it is, in lower case; None: it does not say
    ``bytes``       its length as it was written
    ``modified``    when the server says it was changed, or None
    ``etag``        the server's name for this version, or None
    """

    name: str
    media_type: str | None
    bytes: int
    modified: datetime | None
    etag: str | None


@dataclass(frozen=True)
class RemoteObject:
    """An object of a store: its URL, length in bytes, time of its last change, version."""

    url: str
    bytes: int
    modified: datetime
    etag: str | None


def is_url(text: str) -> bool:
    """Tell whether an argument is a URL of a kind that this module reads."""
    return text.partition("://")[0].lower() in (*WEB, *STORES) and "://" in text


def is_listing(url: str) -> bool:
    """Tell whether a URL names many objects: a bucket, or a prefix that ends in ``/``."""
    scheme, _, rest = url.partition("://")
    return scheme.lower() in STORES and (rest.endswith("/") or "/" not in rest)


def fetch(
    url: str,
    into: BinaryIO,
    *,
    max_bytes: int,
    progress: Done | None = None,
    etag: str | None = None,
    modified: datetime | None = None,
    seconds: float = WHOLE_SECONDS,
) -> Fetched:
    """Write the file at ``url`` to ``into``.

    ``progress``            called after each block
    ``etag``, ``modified``  of a version that the caller has: if that is still the one,
                            NotModified is raised and nothing fetched
    ``seconds``             the whole may take
    """
    wanted = _Wanted(url, max_bytes, time.monotonic() + seconds, etag, modified, progress)
    return _fetch_web(wanted, into) if _parts(url)[0] in WEB else _fetch_object(wanted, into)


@dataclass(frozen=True)
class _Wanted:
    """What to fetch, within what limits; ``until`` on the monotonic clock."""

    url: str
    max_bytes: int
    until: float
    etag: str | None
    modified: datetime | None
    progress: Done | None

    @property
    def public(self) -> str:
        """The URL as it may be shown."""
        return public_url(self.url)


def list_objects(url: str) -> Iterator[RemoteObject]:
    """Yield the objects under ``s3://bucket/prefix/`` that are not empty, ordered by key."""
    scheme, bucket, prefix = _parts(url)
    if scheme not in STORES:
        raise UsageError(
            f"{public_url(url)} cannot be listed", hint="name a file, or s3://bucket/prefix/"
        )
    with _translated_store(public_url(url)):
        for page in _store(scheme, bucket, WHOLE_SECONDS).list(prefix or None, chunk_size=1000):
            for found in page:
                # What some tools leave for a folder; the slash at its end is gone by now.
                if found["size"] == 0:
                    continue
                yield RemoteObject(
                    f"{scheme}://{bucket}/{found['path']}",
                    found["size"],
                    found["last_modified"],
                    found["e_tag"],
                )


# --- addresses ------------------------------------------------------------------------

# Parameters that open a door rather than name a document.
_SECRET = re.compile(
    r"(x-amz-.*|x-goog-.*|x-ms-.*|awsaccesskeyid|googleaccessid|signature|sig|policy|key-pair-id"
    r"|.*token|.*secret|.*password|passwd|pwd|auth|authorization|.*api-?_?key|key|sessionid|jwt)",
    re.I,
)
# What stands beside ``sig`` in a shared access signature of Azure, beside ``Signature`` elsewhere.
_BESIDE = frozenset(
    [
        *("expires", "sv", "se", "st", "sr", "sp", "ss", "srt", "spr", "sip", "sdd", "scid"),
        *("sks", "skv", "ske", "skt", "skoid", "sktid", "saoid", "suoid"),
    ]
)


def public_url(url: str) -> str:
    """Return a URL as it may be stored and shown.

    Without user and password, without fragment, and without the parameters that are signatures,
    keys and tokens.  Other parameters stay: they tell one page from another.
    """
    try:
        parts = urlsplit(url)
        host = _host(parts.hostname, parts.port)
    except ValueError:
        return f"{url.partition('://')[0]}://..."
    if parts.scheme.lower() in STORES:
        return f"{parts.scheme.lower()}://{url.partition('://')[2].rpartition('@')[2]}"
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    signed = any(name.lower() in ("sig", "signature") for name, _ in pairs)
    kept = [
        (name, value)
        for name, value in pairs
        if not _SECRET.fullmatch(name) and not (signed and name.lower() in _BESIDE)
    ]
    # As it was written, if nothing is taken out.
    query = parts.query if len(kept) == len(pairs) else urlencode(kept)
    return urlunsplit((parts.scheme.lower(), host, parts.path or "/", query, ""))


def _host(name: str | None, port: int | None) -> str:
    host = (name or "").lower()
    host = f"[{host}]" if ":" in host else host
    return host if port is None else f"{host}:{port}"


def _parts(url: str) -> tuple[str, str, str]:
    """Return scheme, host or bucket, and key of a URL, or raise UsageError."""
    scheme, between, rest = url.partition("://")
    scheme = scheme.lower()
    if not between or scheme not in (*WEB, *STORES):
        raise UsageError(
            f"{public_url(url)} is of no kind that is read",
            hint="http://, https://, s3://, gs:// or az://",
        )
    place, _, key = rest.partition("/")
    try:
        known = scheme in STORES or (bool(urlsplit(url).hostname) and urlsplit(url).port != 0)
    except ValueError:
        known = False
    if not place or not known:
        raise UsageError(f"{public_url(url)} names no server", hint="https://host/path")
    return scheme, place, key


# --- http and https -------------------------------------------------------------------


def _fetch_web(wanted: _Wanted, into: BinaryIO) -> Fetched:
    import httpx

    headers = {"User-Agent": f"pgstack/{__version__}", "Accept-Encoding": "gzip, deflate"}
    if wanted.etag is not None:
        headers["If-None-Match"] = wanted.etag
    elif wanted.modified is not None:
        since = format_datetime(wanted.modified.astimezone(UTC), usegmt=True)
        headers["If-Modified-Since"] = since
    with (
        _translated_web(wanted.public),
        httpx.Client(
            follow_redirects=True,
            max_redirects=MAX_REDIRECTS,
            timeout=httpx.Timeout(SILENT_SECONDS, connect=CONNECT_SECONDS),
            headers=headers,
            # A proxy of the environment is for the world outside, never for this machine.
            trust_env=not is_loopback(wanted.url),
        ) as client,
        client.stream("GET", wanted.url) as answer,
    ):
        if answer.status_code == httpx.codes.NOT_MODIFIED:
            raise NotModified
        _check_status(answer, wanted.public)
        packed = answer.headers.get("content-encoding", "").strip().lower()
        announced = _number(answer.headers.get("content-length"))
        if announced is not None and announced > wanted.max_bytes:
            raise _too_large(wanted)
        blocks = _unpacked(answer.iter_raw(BLOCK_BYTES), packed, wanted.public)
        return Fetched(
            name=_name(answer.headers.get("content-disposition", ""), str(answer.url)),
            media_type=_media_type(answer.headers.get("content-type", "")),
            bytes=_pour(blocks, into, wanted, None if packed else announced),
            modified=_date(answer.headers.get("last-modified", "")),
            etag=answer.headers.get("etag"),
        )


def _pour(blocks: Iterable[Any], into: BinaryIO, wanted: _Wanted, total: int | None) -> int:
    """Write blocks of bytes to a file, within the limits; return how many bytes they were."""
    done = 0
    for block in blocks:
        done += len(block)
        if done > wanted.max_bytes:
            raise _too_large(wanted)
        if time.monotonic() > wanted.until:
            raise RemoteError(f"{wanted.public} came too slowly", hint="try again later")
        into.write(block)
        if wanted.progress is not None:
            wanted.progress(done, total)
    return done


def _unpacked(blocks: Iterator[bytes], packed: str, where: str) -> Iterator[bytes]:
    """Yield what blocks hold when they are unpacked, never much of it at once."""
    if packed in ("", "identity"):
        yield from blocks
        return
    if packed not in ("gzip", "x-gzip", "deflate"):
        raise RemoteError(f"{where} came packed as {packed[:20]!r}, which is not read")
    unpacker = zlib.decompressobj(wbits=47)  # gzip and zlib
    for block in blocks:
        rest = block
        while rest:
            try:
                yield unpacker.decompress(rest, BLOCK_BYTES)
            except zlib.error:
                raise RemoteError(f"{where} came as damaged {packed} data") from None
            rest = unpacker.unconsumed_tail
    yield unpacker.flush()
    if not unpacker.eof:
        raise RemoteError(f"{where} came as {packed} data without an end")


def _check_status(answer: httpx.Response, where: str) -> None:
    status = answer.status_code
    if answer.is_success:
        return
    said = {
        401: "asks for a user and a password",
        403: "refuses access",
        404: "has no such file",
        410: "has the file no longer",
        429: "asks to be left alone for a while",
    }.get(status, "did not give the file")
    hint = {
        401: "https://user:password@host/path; neither is stored",
        404: "open the address in a browser",
        429: "try again later",
    }.get(status)
    host = _host(answer.url.host, answer.url.port)
    through = "" if host == urlsplit(where).netloc else f", redirected to {host}"
    raise RemoteError(f"{where}: the server {said} (HTTP {status}{through})", hint=hint)


@contextmanager
def _translated_web(where: str) -> Iterator[None]:
    """Turn what httpx raises into errors of ours, without what it says of addresses."""
    import httpx

    try:
        yield
    except httpx.TooManyRedirects:
        raise RemoteError(f"{where} redirects more than {MAX_REDIRECTS} times") from None
    except (httpx.UnsupportedProtocol, httpx.InvalidURL):
        raise RemoteError(f"{where} is, or redirects to, no address on the web") from None
    except httpx.ConnectTimeout:
        raise Unreachable(f"{where}: no answer within {CONNECT_SECONDS:g} s") from None
    except httpx.TimeoutException:
        raise RemoteError(f"{where}: nothing came for {SILENT_SECONDS:g} s") from None
    except httpx.ConnectError as exc:
        raise Unreachable(
            f"cannot reach {where}: {str(exc)[:200] or 'no connection'}",
            hint="is the address right, and is this machine online?",
        ) from None
    except httpx.HTTPError as exc:
        raise RemoteError(f"{where}: the connection broke ({type(exc).__name__})") from None


def _too_large(wanted: _Wanted) -> RemoteError:
    return RemoteError(f"{wanted.public} is larger than {wanted.max_bytes / 1e6:,.0f} MB")


def _number(header: str | None) -> int | None:
    return int(header) if header and re.fullmatch(r"[0-9]{1,18}", header) else None


def _date(header: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(header)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _media_type(header: str) -> str | None:
    """Return the media type of a header; None where it says only that these are bytes."""
    found = header.partition(";")[0].strip().lower()
    if not re.fullmatch(r"[\w.+-]{1,60}/[\w.+-]{1,100}", found) or found.endswith("/octet-stream"):
        return None
    return found


def _name(disposition: str, url: str) -> str:
    """Return the name of a file: the header's, else the last part of its address."""
    header = Message()
    header["content-disposition"] = disposition
    given = header.get_filename() or ""
    path = given.replace("\\", "/") or unquote(urlsplit(url).path)
    return path.rstrip("/").rpartition("/")[2].replace("\0", "") or urlsplit(url).hostname or ""


# --- object stores --------------------------------------------------------------------


def _fetch_object(wanted: _Wanted, into: BinaryIO) -> Fetched:
    scheme, bucket, key = _parts(wanted.url)
    if not key or key.endswith("/"):
        raise UsageError(f"{wanted.public} names no object", hint="s3://bucket/key")
    with _translated_store(wanted.public):
        found = _store(scheme, bucket, wanted.until - time.monotonic()).get(
            key, options=None if wanted.etag is None else {"if_none_match": wanted.etag}
        )
        meta = found.meta
        if meta["size"] > wanted.max_bytes:
            raise _too_large(wanted)
        return Fetched(
            name=key.rpartition("/")[2],
            media_type=_media_type(found.attributes.get("Content-Type") or ""),
            bytes=_pour(found.stream(min_chunk_size=BLOCK_BYTES), into, wanted, meta["size"]),
            modified=meta["last_modified"],
            etag=meta["e_tag"],
        )


def _store(scheme: str, bucket: str, seconds: float) -> Any:
    """Return a client of a bucket; it sends nothing yet."""
    try:
        from obstore import store
    except ImportError:
        raise RemoteError(
            f"{scheme}:// needs a package that is not installed",
            hint="pip install 'pgstack[cloud]'",
        ) from None
    make: Any = {"s3": store.S3Store, "gs": store.GCSStore, "az": store.AzureStore}[scheme]
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    own: dict[str, Any] = {"endpoint": endpoint} if scheme == "s3" and endpoint else {}
    plain = scheme == "s3" and (endpoint or "").startswith("http://")
    return make(
        bucket,
        **own,
        client_options={
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "timeout": timedelta(seconds=seconds),
            # Only where the user has named such a server.
            **({"allow_http": True} if plain else {}),
        },
        retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=SILENT_SECONDS)},
    )


@contextmanager
def _translated_store(where: str) -> Iterator[None]:
    """Turn what obstore raises into errors of ours; it tells addresses and headers in its own."""
    try:
        yield
    except (PgstackError, NotModified, MemoryError):
        raise
    except Exception as exc:
        if isinstance(exc, OSError) and exc.errno is not None:
            raise  # of the file written to; obstore's FileNotFoundError has no number
        raise _store_error(exc, where) from None


def _store_error(exc: Exception, where: str) -> Exception:
    kind = type(exc).__name__
    text = " ".join(str(exc).partition("\n")[0].split())
    credentials = _CREDENTIALS[where.partition("://")[0]]
    refused = kind in ("PermissionDeniedError", "UnauthenticatedError")
    if kind == "NotModifiedError":
        return NotModified()
    if isinstance(exc, FileNotFoundError):
        return RemoteError(f"{where}: there is no such object or bucket")
    if refused or re.search(r"\b40[13]\b|[Cc]redential|[Aa]ccount must", text):
        return RemoteError(
            f"{where}: access is refused, or there are no credentials", hint=credentials
        )
    if kind in ("GenericError", "JoinError") and re.search(
        "sending request|connect|dns", text, re.I
    ):
        return Unreachable(f"cannot reach the object store of {where}", hint=credentials)
    # Without addresses: they may be signed.
    text = re.sub(r"https?://\S+", "...", text)
    return RemoteError(f"{where}: {text[:200] or kind}", hint=credentials)
