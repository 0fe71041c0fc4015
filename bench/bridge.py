"""What the bridge adds to a model call: pgstack.embed() against the model server itself.

    make bench-bridge

One session, one text a call, a deterministic model server without latency, so that the
difference is what the way through the database costs: second connection, request table,
notification, worker.  Then texts that were asked before, which reach no model at all.
"""

from __future__ import annotations

import argparse
import uuid

import httpx

from bench import _stack
from bench._report import Case, median, report, times_ms
from pgstack.db import connect

ALLOWED_MS = 6.0
ALLOWED_REPEATED_MS = 1.0


def main() -> None:
    """Measure, print, write bench/out/bridge.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=300)
    runs = parser.parse_args().runs
    run = uuid.uuid4().hex

    with (
        _stack.running() as stack,
        httpx.Client(base_url=stack.models_url) as http,
        connect(stack.dsn, autocommit=True) as conn,
        connect(stack.dsn, autocommit=True) as other,
    ):

        def direct(i: int) -> object:
            body = {"model": "all-minilm", "input": f"direct {run} {i}"}
            return http.post("/api/embed", json=body).json()

        def bridged(i: int) -> object:
            return conn.execute("select pgstack.embed(%s)", (f"bridged {run} {i}",)).fetchone()

        def repeated(i: int) -> object:
            return conn.execute("select pgstack.embed(%s)", (f"bridged {run} 0",)).fetchone()

        def elsewhere(i: int) -> object:
            return other.execute("select pgstack.embed(%s)", (f"bridged {run} {i}",)).fetchone()

        model = times_ms(direct, runs)
        ours = times_ms(bridged, runs)
        again = times_ms(repeated, runs)
        shared = times_ms(elsewhere, runs)
        cases = [
            Case("embed(new text), p50", median(ours), median(model), "ms", runs),
            Case("embed(repeated text), p50", median(again), median(model), "ms", runs),
            Case("embed(text of another session), p50", median(shared), median(model), "ms", runs),
        ]
    report("bridge", "model server itself", cases, ["pgstack", "psycopg", "httpx"])
    added = cases[0].ours - cases[0].peer
    print(
        f"the bridge adds {added:.2f} ms (goal: under {ALLOWED_MS:.0f}); "
        f"a repeated text takes {cases[1].ours:.2f} ms (goal: under {ALLOWED_REPEATED_MS:.0f})"
    )


if __name__ == "__main__":
    main()
