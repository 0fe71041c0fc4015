"""``pgstack forget``."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from pgstack_cli.options import AsJson, DatabaseUrl
from pgstack_cli.output import json_document, message, result


def forget(
    name: Annotated[str, typer.Argument(help="A vectorizer, or a collection with --uri.")],
    *,
    key: Annotated[
        str | None, typer.Option("--id", help="""Key of the row, as search gives it: {"id": 7}.""")
    ] = None,
    uri: Annotated[str | None, typer.Option("--uri", help="Uri of the document.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
    url: DatabaseUrl = None,
) -> None:
    """Delete a row or a document, and all that pgstack keeps of it.

    Chunks, vectors, words, queues, errors, caches, judged sets. What stays in the files of
    tables goes with the vacuum that is printed at the end.
    --json: one document, {"places": [{"place", "rows"}], "vacuum": SQL or null}.

    \b
    Examples:
      pgstack forget letters --id '{"id": 7}'
      pgstack forget handbook --uri leave.md --yes
    """
    from pgstack import cleaning, target

    if (key is None) == (uri is None):
        raise typer.BadParameter("pass --id for a row, or --uri for a document")
    found = parsed(key) if key is not None else None
    if not yes:
        what = uri if found is None else key
        typer.confirm(f"Delete {what} of {name} for good?", abort=True, err=True)
    with target.connect(url) as conn:
        if found is not None:
            places = cleaning.forget_row(conn, name, found)
        else:
            places = cleaning.forget_document(conn, name, str(uri))
        conn.commit()
    vacuum = f"vacuum (analyze) {', '.join(p.place for p in places)};" if places else None
    if as_json:
        json_document({"places": places, "vacuum": vacuum})
        return
    for forgotten in places:
        result(f"{forgotten.rows:8,}  {forgotten.place}")
    if vacuum:
        message(f"and out of the files of these tables, full also out of their pages:\n  {vacuum}")
    else:
        message("nothing was there")


def parsed(key: str) -> dict[str, Any]:
    """Return a key given as JSON."""
    try:
        found = json.loads(key)
    except ValueError as error:
        raise typer.BadParameter(f"--id is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise typer.BadParameter('--id is an object, such as {"id": 7}')
    return found
