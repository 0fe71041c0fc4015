"""``python -m pgstack.worker``: the worker alone, as the embedded stack starts it."""

from __future__ import annotations

import argparse
import logging
import sys

from pgstack.errors import PgstackError
from pgstack.models import resolve_url
from pgstack.worker.app import WorkerOptions, run


def main() -> int:
    """Run a worker; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m pgstack.worker", description=__doc__)
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--vectorizer", action="append", dest="names")
    args = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        run(
            WorkerOptions(
                dsn=args.database_url,
                model_server=resolve_url(),
                names=args.names,
                concurrency=args.concurrency,
                once=args.once,
            )
        )
    except PgstackError as exc:
        sys.stderr.write(f"error: {exc}\n" + (f"hint: {exc.hint}\n" if exc.hint else ""))
        return exc.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
