"""``python -m pgstack.embedded.modelserver``: serve models, fetch them, or list their sizes.

    ... --host 127.0.0.1 --port 0 --models-dir DIR --url-file FILE
    ... --deterministic --port 0 --url-file FILE
    ... pull all-minilm smollm2:135m --models-dir DIR
    ... sizes

The server writes its base URL to FILE, atomically, once it answers, and removes it when it
ends.  SIGTERM and SIGINT end it cleanly.  Exit codes: 0 ok, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from pgstack.embedded.modelserver import catalogue, download
from pgstack.errors import PgstackError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

# How long open requests may take to end after SIGTERM, in seconds.
_SHUTDOWN_SECONDS = 3


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code."""
    args = _parser().parse_args(argv)
    try:
        match args.command:
            case "pull":
                return _pull(args.names, args.models_dir)
            case "sizes":
                return _sizes()
            case _:
                return _serve(args)
    except PgstackError as exc:
        print(f"error: {exc}", file=sys.stderr)
        if exc.hint:
            print(f"hint: {exc.hint}", file=sys.stderr)
        return exc.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pgstack.embedded.modelserver")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--allow-remote", action="store_true", help="permit other than loopback")
    parser.add_argument("--port", type=int, default=11434, help="0 takes a free one")
    parser.add_argument("--models-dir", type=Path, help="where models are, and are pulled to")
    parser.add_argument("--url-file", type=Path, help="file to write the base URL to")
    parser.add_argument("--exit-on-eof", action="store_true", help="end when stdin is closed")
    parser.add_argument("--deterministic", action="store_true", help="no models: for tests")
    parser.add_argument("--latency-ms", type=float, default=0, help="of each model call")
    parser.add_argument("--dims", type=int, default=384, help="length of all-minilm's vectors")
    parser.add_argument("--vectors", choices=("words", "hash"), default="words")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    pull = commands.add_parser("pull", help="download models, verify them, install them")
    pull.add_argument("names", nargs="+", metavar="NAME")
    pull.add_argument("--models-dir", type=Path, required=True)
    commands.add_parser("sizes", help="print name, download MB, installed MB of each model")
    return parser


def _sizes() -> int:
    for model in catalogue.load():
        print(f"{model.name}\t{model.download_bytes / 1e6:.0f}\t{model.installed_bytes / 1e6:.0f}")
    return 0


def _pull(names: list[str], models_dir: Path) -> int:
    for name in names:
        last = ""
        for step in download.pull(name, models_dir):
            line = f"{name}: {step.status}" + (f" {step.percent}%" if step.total else "")
            if line != last:
                print(line, flush=True)
            last = line
    return 0


def _serve(args: argparse.Namespace) -> int:
    """Serve until a signal arrives."""
    _require_loopback(args.host, allowed=args.allow_remote)
    if not args.deterministic and args.models_dir is None:
        print("error: --models-dir is required", file=sys.stderr)
        return 2
    listener = _listen(args.host, args.port)
    if args.exit_on_eof:
        threading.Thread(target=_end_on_eof, daemon=True).start()
    stopping = asyncio.Event()
    app = _deterministic_app(args, stopping) if args.deterministic else _real_app(args, stopping)
    _run(_guarded(app, args), stopping, listener, args.url_file)
    return 0


def _require_loopback(host: str, *, allowed: bool) -> None:
    """Refuse to offer the models to the network by accident: the API has no passwords."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and not allowed:
        raise PgstackError(
            f"refusing to listen on {host}: anyone who reaches it could use the models",
            hint="--host 127.0.0.1, or --allow-remote if that is what you want",
        )


def _listen(host: str, port: int) -> socket.socket:
    """Bind now, so that a taken port is one clear line."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio turns TCP_NODELAY on only where it is: without,
    # every answer waits 40 ms for the client's delayed ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as exc:
        raise PgstackError(
            f"cannot listen on {host} port {port}: {exc.strerror}", hint="--port 0 takes a free one"
        ) from exc
    return listener


def _end_on_eof() -> None:
    """End this process when whoever started it is gone."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _guarded(app: ASGIApp, args: argparse.Namespace) -> ASGIApp:
    """Answer loopback names alone: a web page whose name was pointed here must learn nothing."""
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    names = ["localhost", "127.0.0.1", "[::1]", "::1", args.host]
    hosts = ["*"] if args.allow_remote else names
    return TrustedHostMiddleware(app, allowed_hosts=hosts, www_redirect=False)


def _deterministic_app(args: argparse.Namespace, stopping: asyncio.Event) -> ASGIApp:
    from pgstack.embedded.modelserver.app import create_app
    from pgstack.embedded.modelserver.deterministic import Deterministic, FaultyTransport

    backend = Deterministic(dimensions=args.dims, mode=args.vectors, latency_ms=args.latency_ms)
    return FaultyTransport(create_app(backend, stopping, backend.control_routes()), backend)


def _real_app(args: argparse.Namespace, stopping: asyncio.Event) -> ASGIApp:
    # Before xllamacpp is imported: idle OpenMP threads must sleep, not spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from pgstack.embedded.modelserver.app import create_app
    from pgstack.embedded.modelserver.engine import Engine

    download.sweep(args.models_dir)
    return create_app(Engine(args.models_dir), stopping)


def _run(
    app: ASGIApp, stopping: asyncio.Event, listener: socket.socket, url_file: Path | None
) -> None:
    """Serve on ``listener`` until SIGTERM or SIGINT."""
    import uvicorn

    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            print(f"listening on {url}", file=sys.stderr, flush=True)
            if url_file is not None:
                _write_atomically(url_file, url)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            stopping.set()
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    # uvicorn ends its work on the first signal and then raises it again: to us.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        Server(config).run(sockets=[listener])
    finally:
        _remove_if_ours(url_file, url)


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(f"{text}\n")
    temporary.replace(path)


def _remove_if_ours(path: Path | None, url: str) -> None:
    """Remove the URL file, unless a newer server has written its own."""
    if path is not None and path.exists() and path.read_text().strip() == url:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
