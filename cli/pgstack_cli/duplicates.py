"""``pgstack duplicates``."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from pgstack_cli.options import AsJson, DatabaseUrl
from pgstack_cli.output import json_document, message, result


def duplicates(
    name: Annotated[str, typer.Argument(help="A vectorizer, a collection or their table.")],
    *,
    threshold: Annotated[
        float,
        typer.Option("--threshold", min=0.3, max=1, help="Least similarity; 1: only the same."),
    ] = 0.8,
    keep: Annotated[
        Literal["longest", "oldest"], typer.Option("--keep", help="Which row of a cluster to keep.")
    ] = "longest",
    limit: Annotated[int, typer.Option("--limit", min=1, help="Clusters shown.")] = 20,
    as_json: AsJson = False,
    url: DatabaseUrl = None,
) -> None:
    """Show rows of NAME whose texts are the same, or nearly.

    Clusters that take most room first: the row to keep, and those that could go. Nothing is
    deleted.
    --json: one document, {"clusters": [{"cluster", "copies", "exact", "keep_id", "drop_ids",
    "characters", "least_similarity"}]}, of all of them.

    \b
    Examples:
      pgstack duplicates handbook
      pgstack duplicates handbook --threshold 0.5 --keep oldest
      pgstack duplicates handbook --json
    """
    from pgstack import cleaning, target

    with target.connect(url) as conn:
        clusters = cleaning.duplicate_report(conn, name, threshold=threshold, keep=keep)
    if as_json:
        json_document({"clusters": clusters})
        return
    for found in clusters[:limit]:
        others = [json.dumps(key, ensure_ascii=False) for key in found.drop_ids]
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        result(
            f"{found.copies:5} rows  {found.characters:10,} characters  keep "
            f"{json.dumps(found.keep_id, ensure_ascii=False)}, not {', '.join(others[:3])}{more}"
        )
    rows = sum(found.copies - 1 for found in clusters)
    characters = sum(found.characters for found in clusters)
    message(f"clusters: {len(clusters)}; {rows:,} rows, {characters:,} characters could go")
