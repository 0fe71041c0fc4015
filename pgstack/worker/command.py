"""The command line of ``python -m pgstack.worker``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager

from pgstack.errors import PgstackError
from pgstack.models import resolve_url
from pgstack.worker.app import WorkerOptions, run
from pgstack.worker.meter import Meter
from pgstack.worker.progress import Observer, logged


@contextmanager
def metered(options: WorkerOptions, meter: Meter, address: str | None) -> Iterator[None]:
    """Serve metrics while the block runs, if somebody asked for them."""
    if address is None:
        yield
        return
    from pgstack.worker.metrics import serving

    with (
        closing(Observer(options.dsn, options.names)) as observer,
        serving(address, meter, observer),
    ):
        yield


def main() -> int:
    """Run a worker; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pgstack.worker",
        description="The worker alone, as the embedded stack starts it.",
    )
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--vectorizer", action="append", dest="names")
    parser.add_argument("--metrics", metavar="[HOST:]PORT")
    args = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        options = WorkerOptions(
            dsn=args.database_url,
            model_server=resolve_url(),
            names=args.names,
            concurrency=args.concurrency,
            once=args.once,
        )
        meter = Meter()
        with metered(options, meter, args.metrics), logged(meter):
            run(options, meter)
    except PgstackError as exc:
        sys.stderr.write(f"error: {exc}\n" + (f"hint: {exc.hint}\n" if exc.hint else ""))
        return exc.exit_code
    return 0
