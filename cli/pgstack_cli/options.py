"""Options and arguments that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "-d",
        "--database-url",
        metavar="URL",
        help="Which database. Default: $PGSTACK_DATABASE_URL, else the embedded stack.",
        show_default=False,
    ),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

Name = Annotated[
    str, typer.Argument(help="A vectorizer or collection: see `pgstack vectorizer list`.")
]
