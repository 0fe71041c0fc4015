"""``pgstack eval``: how good searches are, and whether a change made them better."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgstack_cli.options import AsJson, DatabaseUrl, Name
from pgstack_cli.output import (
    clean,
    heading,
    json_document,
    message,
    pairs,
    plain_json,
    progress,
    result,
    table,
)
from pgstack_cli.search import Mode, snippet

if TYPE_CHECKING:
    from pgstack.evaluation import Difference, Metric, Run, Summary
    from pgstack.judged import Loaded

SHOWN = 5  # queries named from either end of a comparison

app = typer.Typer(
    help="Measure how good searches are: load judged queries, run, compare.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

SetName = Annotated[
    str, typer.Argument(metavar="SET", help="A judged set: see `pgstack eval list`.")
]
MetricName = Annotated[str, typer.Option("--metric", help="The metric that queries are shown by.")]


@app.command()
def load(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder in the BEIR layout.")],
    *,
    name: Annotated[
        str | None, typer.Option("--name", help="The set's name. Default: the folder's.")
    ] = None,
    qrels: Annotated[
        Path | None, typer.Option("--qrels", metavar="FILE", help="Other judgements than DIR's.")
    ] = None,
    to_table: Annotated[
        str | None,
        typer.Option("--table", metavar="NAME", help="Load corpus.jsonl too: into this table."),
    ] = None,
    collection: Annotated[
        str | None, typer.Option("--collection", metavar="NAME", help="Or into this collection.")
    ] = None,
    vectorize: Annotated[
        bool, typer.Option("--vectorize", help="Make a vectorizer for --table.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the corpus is embedded.")
    ] = False,
    model: Annotated[
        str | None, typer.Option("--model", help="Embedding model of what is made now.")
    ] = None,
    as_json: AsJson = False,
    url: DatabaseUrl = None,
) -> None:
    """Load judged queries, and the corpus they are about.

    DIR holds queries.jsonl, qrels.tsv (or qrels/test.tsv) and corpus.jsonl. Loading again
    replaces the set, and changes only those documents that differ. --json: one document: set,
    queries, judged_queries, judgments, corpus {table, inserted, updated, removed, vectorizer},
    missing (relevant documents that the corpus lacks).

    \b
    Examples:
      pgstack eval load ./scifact
      pgstack eval load ./scifact --table scifact --vectorize --wait
      pgstack eval load ./scifact --name scifact-dev --qrels ./scifact/qrels/dev.tsv --json
    """
    from pgstack import judged, target
    from pgstack.errors import UsageError
    from pgstack_cli.ingest import follow

    if to_table is not None and collection is not None:
        raise UsageError("--table and --collection are two places", hint="Choose one of them.")
    if vectorize and to_table is None:
        raise UsageError("--vectorize needs --table", hint="--table NAME --vectorize")
    to = None
    if to_table is not None or collection is not None:
        to = judged.Destination(to_table, collection, vectorize, model)
    with target.connect(url) as conn:
        with progress(f"loading {folder}", in_bytes=True) as advance:
            loaded = judged.load(conn, folder, name, qrels=qrels, to=to, progress=advance)
        if as_json:
            json_document(loaded)
        else:
            _print_loaded(loaded)
        if wait and loaded.corpus is not None and loaded.corpus.vectorizer is not None:
            follow(conn, loaded.corpus.vectorizer)


def _print_loaded(loaded: Loaded) -> None:
    if corpus := loaded.corpus:
        message(
            f"{corpus.table}: {corpus.inserted:,} new, {corpus.updated:,} changed, "
            f"{corpus.removed:,} removed"
        )
    message(
        f"{loaded.set}: {loaded.queries:,} queries, {loaded.judged_queries:,} judged by "
        f"{loaded.judgments:,} judgements"
    )
    if loaded.missing:
        message(f"warning: {loaded.missing:,} relevant documents are not in the corpus")
    vectorizer = (loaded.corpus and loaded.corpus.vectorizer) or "VECTORIZER"
    message(f"hint: pgstack eval run {loaded.set} {vectorizer}")


@app.command("list")
def list_all(as_json: AsJson = False, url: DatabaseUrl = None) -> None:
    """List the judged sets and the runs.

    --json: one document: sets (the rows of pgstack.eval_sets) and runs (those of
    pgstack.eval_runs).

    \b
    Examples:
      pgstack eval list
      pgstack eval list --json
    """
    from pgstack import evaluation, target

    with target.connect(url) as conn:
        sets = evaluation.sets(conn)
        runs = evaluation.runs(conn)
        scores = (
            {} if as_json else {run.run: _first(evaluation.metrics(conn, run.run)) for run in runs}
        )
    if as_json:
        json_document({"sets": sets, "runs": runs})
        return
    if not sets:
        message("no judged sets yet. Next: pgstack eval load DIR")
        return
    table(
        ("set", "owner", "from", "queries", "judged", "judgements", "runs"),
        [
            (s.name, s.owner, s.origin, s.queries, s.judged_queries, s.judgments, s.runs)
            for s in sets
        ],
    )
    if runs:
        result("")
        table(
            ("run", "set", "what", "k", "state", "score", "begun"),
            [(r.run, r.set, r.name, r.k, r.state, scores[r.run], r.started_at) for r in runs],
        )


def _first(metrics: list[Metric]) -> str | None:
    return f"{metrics[0].metric} {metrics[0].value:.4f}" if metrics else None


@app.command()
def run(
    set_name: SetName,
    vectorizer: Name,
    *,
    modes: Annotated[
        list[Mode] | None,
        typer.Option("--mode", help="How to search; repeat it to compare. Default: hybrid."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Rows asked for.")] = 100,
    minima: Annotated[
        list[str] | None,
        typer.Option("--min", metavar="METRIC=VALUE", help="Exit 1 when a run is worth less."),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=VALUE", help="Argument of pgstack.search()."),
    ] = None,
    filter: Annotated[
        str | None,
        typer.Option("--filter", metavar="JSON", help="Columns that must have these values."),
    ] = None,
    doc_column: Annotated[
        str | None,
        typer.Option("--doc-column", help="Column with the judged ids. Default: the key."),
    ] = None,
    label: Annotated[str | None, typer.Option("--label", help="A name for the run.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the confidence intervals.")] = 1,
    as_json: AsJson = False,
    url: DatabaseUrl = None,
) -> None:
    """Search for every judged query of SET and score the results.

    Runs are kept with all they depend on. With --min, exit code 1 when a metric is worse than
    that, in any of the modes. --json: one document, an array of runs: a row of
    pgstack.eval_runs, metrics [{metric, value, low, high, queries}] and missed [text].

    \b
    Examples:
      pgstack eval run scifact scifact
      pgstack eval run scifact scifact --mode vector --mode text --mode hybrid
      pgstack eval run scifact scifact --min ndcg@10=0.68 --min recall@100=0.9
      pgstack eval run scifact scifact --option rrf_k=20 --label "k 20" --json
    """
    from pgstack import evaluation, target
    from pgstack.search import parse_filter

    wanted = dict(evaluation.parse_minimum(text) for text in minima or [])
    further = dict(_option(text) for text in options or [])
    done: list[tuple[Run, list[Metric], list[str]]] = []
    with target.connect(url) as conn:
        conn.add_notice_handler(lambda notice: message(f"warning: {notice.message_primary}"))
        for mode in modes or [Mode.hybrid]:
            plan = evaluation.Plan(
                set_name,
                vectorizer,
                mode=mode.value,
                k=k,
                filter=parse_filter(filter),
                doc_column=doc_column,
                options=further,
                label=label,
                seed=seed,
            )
            with progress(f"{set_name}, {mode.value}", unit="queries") as advance:
                made = evaluation.evaluate(conn, plan, progress=advance)
            found = evaluation.metrics(conn, made.run)
            done.append((made, found, evaluation.missed(found, wanted)))
    if as_json:
        json_document([_run_json(made, found, missed=short) for made, found, short in done])
    else:
        _print_metrics([(made, found) for made, found, _ in done])
    for made, _, short in done:
        for text in short:
            message(f"error: run {made.run} ({made.name}): {text}")
    if any(short for *_, short in done):
        raise typer.Exit(1)


def _option(text: str) -> tuple[str, str]:
    from pgstack.errors import UsageError

    name, sign, value = text.partition("=")
    if not sign or not name:
        raise UsageError(f'"{text}" is no option', hint="--option rrf_k=20")
    return name.strip(), value


def _run_json(run: Run, metrics: list[Metric], **more: Any) -> dict[str, Any]:
    return {**plain_json(run), "metrics": metrics, **more}


def _print_metrics(done: list[tuple[Run, list[Metric]]]) -> None:
    """Print metrics as rows and runs as columns."""
    shown = {metric.metric: [""] * len(done) for _, metrics in done for metric in metrics}
    for column, (_, metrics) in enumerate(done):
        for metric in metrics:
            shown[metric.metric][column] = _interval(metric.value, metric.low, metric.high)
    heads = [f"run {made.run}: {clean(made.name)}" for made, _ in done]
    latency = [_ms(made.p50_ms) for made, _ in done]
    table(
        ("metric", *heads),
        [*((name, *cells) for name, cells in shown.items()), ("median time", *latency)],
    )
    queries = sorted({metric.queries for _, metrics in done for metric in metrics})
    message(f"95 % confidence in brackets; {', '.join(map(str, queries))} queries")
    if len(done) > 1:
        message(f"hint: pgstack eval compare {done[0][0].run} {done[-1][0].run}")


def _interval(value: float, low: float, high: float, *, sign: str = "") -> str:
    return f"{value:{sign}.4f} [{low:{sign}.4f}, {high:{sign}.4f}]"


def _ms(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds:.1f} ms"


@app.command()
def show(
    number: Annotated[int, typer.Argument(metavar="RUN", help="A run: see `pgstack eval list`.")],
    *,
    metric: MetricName = "ndcg@10",
    count: Annotated[int, typer.Option("-n", min=0, help="Queries to show, the worst first.")] = 10,
    as_json: AsJson = False,
    url: DatabaseUrl = None,
) -> None:
    """Show a run: what it ran, what it was worth, and its worst queries.

    --json: one document: the row of pgstack.eval_runs, metrics, and queries (all of them, the
    rows of pgstack.eval_queries()).

    \b
    Examples:
      pgstack eval show 3
      pgstack eval show 3 --metric recall@100 -n 30
      pgstack eval show 3 --json
    """
    from pgstack import evaluation, target

    with target.connect(url) as conn:
        found = evaluation.run(conn, number)
        metrics = evaluation.metrics(conn, number)
        queries = evaluation.worst(conn, number, metric) if metrics else []
    if as_json:
        json_document(_run_json(found, metrics, queries=queries))
        return
    facts = {key: value for key, value in vars(found).items() if key != "config"} | found.config
    pairs([(key.replace("_", " "), value) for key, value in facts.items()])
    result("")
    if not metrics:
        message(f"it was interrupted after {found.searched} of {found.queries} queries")
        return
    _print_metrics([(found, metrics)])
    if count:
        result("")
        table(
            (metric, "first", "found", "query"),
            [
                (f"{q.value:.4f}", q.first_rank, f"{q.found or 0} of {q.relevant or 0}", _query(q))
                for q in queries[:count]
            ],
        )


def _query(query: Any) -> str:
    return f"{query.query_id}: {snippet(query.query or '(gone)')}"


@app.command()
def compare(
    a: Annotated[int, typer.Argument(metavar="RUN", help="A run, the older one as a rule.")],
    b: Annotated[int, typer.Argument(metavar="RUN", help="The run to compare with it.")],
    *,
    metric: MetricName = "ndcg@10",
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw it: an SVG file.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of intervals and tests.")] = 1,
    as_json: AsJson = False,
    url: DatabaseUrl = None,
) -> None:
    """Say whether the second run is better than the first, and for which queries.

    p is how often a difference this large comes by chance alone. --json: one document: a, b
    (rows of pgstack.eval_runs), summary (rows of pgstack.compare_summary()), metric, queries
    (rows of pgstack.compare_runs()).

    \b
    Examples:
      pgstack eval compare 1 2
      pgstack eval compare 1 2 --metric recall@100 --plot text-hybrid.svg
      pgstack eval compare 1 2 --json
    """
    from pgstack import evaluation, target

    with target.connect(url) as conn:
        first, second = evaluation.run(conn, a), evaluation.run(conn, b)
        queries = evaluation.differences(conn, a, b, metric)
        summary = evaluation.compare(conn, a, b, seed=seed)
    if as_json:
        json_document(
            {"a": first, "b": second, "summary": summary, "metric": metric, "queries": queries}
        )
    else:
        _print_summary(first, second, summary)
        _print_differences(metric, queries)
    if plot is not None:
        from pgstack_cli.evaluation_plot import svg

        try:
            plot.write_text(svg(first, second, summary, metric, queries), encoding="utf-8")
        except OSError as exc:
            message(f"error: cannot write {plot}: {exc.strerror}")
            raise typer.Exit(1) from exc
        message(f"drawn in {plot}")


def _print_summary(a: Run, b: Run, summary: list[Summary]) -> None:
    for which, run in (("a", a), ("b", b)):
        result(f"{which}  run {run.run}: {run.name} (set {run.set}, k {run.k})")
    result("")
    table(
        ("metric", "a", "b", "b - a, with 95 % confidence", "p", "wins/ties/losses of b"),
        [
            (
                s.metric,
                f"{s.mean_a:.4f}",
                f"{s.mean_b:.4f}",
                _interval(s.difference, s.low, s.high, sign="+"),
                p_value(s.p_value),
                f"{s.wins}/{s.ties}/{s.losses}",
            )
            for s in summary
        ],
    )


def p_value(value: float, *, sign: str = "") -> str:
    """Return a p-value as people write it."""
    return f"{sign}{value:.4f}" if value >= 0.001 else "< 0.001"


def _print_differences(metric: str, queries: list[Difference]) -> None:
    gained = [q for q in queries if q.difference > 1e-12][:SHOWN]
    lost = [q for q in queries[::-1] if q.difference < -1e-12][:SHOWN]
    for title, found in (("gain most", gained), ("lose most", lost)):
        if found:
            result("")
            heading(f"Queries that {title}, by {metric}")
            table(
                ("a", "b", "b - a", "query"),
                [
                    (f"{q.value_a:.4f}", f"{q.value_b:.4f}", f"{q.difference:+.4f}", _query(q))
                    for q in found
                ],
            )


@app.command()
def drop(
    name: Annotated[
        str | None, typer.Argument(metavar="[SET]", help="A judged set, with its runs.")
    ] = None,
    *,
    runs: Annotated[
        list[int] | None, typer.Option("--run", metavar="RUN", help="Or this run; repeatable.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: DatabaseUrl = None,
) -> None:
    """Drop a judged set and the runs scored with it, or single runs. The corpus stays.

    \b
    Examples:
      pgstack eval drop scifact --yes
      pgstack eval drop --run 3 --run 4
    """
    from pgstack import evaluation, target
    from pgstack.errors import UsageError

    if (name is None) == (not runs):
        raise UsageError("name a set, or runs", hint="pgstack eval drop SET   # or: --run RUN")
    with target.connect(url) as conn:
        for number in runs or []:
            evaluation.drop_run(conn, number)
            message(f"run {number} is dropped")
        if name is None:
            return
        if not yes:
            if not sys.stdin.isatty():
                raise UsageError("nobody is there to ask", hint="say it with --yes")
            typer.confirm(f"Drop the judged set {name} and its runs?", abort=True, err=True)
        evaluation.drop_set(conn, name)
    message(f"{name} is dropped")
