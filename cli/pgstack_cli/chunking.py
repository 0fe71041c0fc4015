"""``pgstack chunking``: how vectorizers cut their text, and the options that say so."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

import typer

from pgstack_cli.options import DatabaseUrl, Name
from pgstack_cli.output import message

app = typer.Typer(
    help="How texts are cut: compare ways, change a vectorizer's.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Method(StrEnum):
    """How texts are cut."""

    recursive = "recursive"
    character = "character"
    sentence = "sentence"
    markdown = "markdown"
    token = "token"  # noqa: S105
    page = "page"
    none = "none"


class Keep(StrEnum):
    """Where a separator goes."""

    start = "start"
    end = "end"
    none = "none"


MethodOption = Annotated[Method, typer.Option("--chunking", help="How texts are cut.")]
ChunkSize = Annotated[
    int, typer.Option("--chunk-size", min=1, help="Characters of a chunk; tokens with token.")
]
ChunkOverlap = Annotated[
    int, typer.Option("--chunk-overlap", min=0, help="How much two chunks share.")
]
Separators = Annotated[
    list[str] | None,
    typer.Option("--separator", help=r"Where to cut, in order of preference; \n is a line end."),
]
Regex = Annotated[bool, typer.Option("--regex", help="Separators are regular expressions.")]
KeepSeparator = Annotated[
    Keep | None, typer.Option("--keep-separator", help="At the start or end of a chunk, or not.")
]
MaskPii = Annotated[
    str | None,
    typer.Option(
        "--mask-pii",
        metavar="TYPES",
        help="Personal data to mask before anything is embedded: email,iban ... or all.",
    ),
]

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "\\": "\\"}


def unescaped(separators: list[str] | None, *, regex: bool) -> list[str] | None:
    r"""Return separators with \n, \t, \r, \f and \\ read; a regular expression reads its own."""
    if not separators or regex:
        return separators or None
    return [re.sub(r"\\([ntrf\\])", lambda m: _ESCAPES[m[1]], text) for text in separators]


def kept(keep: Keep | None) -> str | None:
    """Return where separators go as SQL takes it."""
    return None if keep is None else keep.value


def split_types(types: str | None) -> list[str] | None:
    """Return the types of a list with commas."""
    if types is None:
        return None
    return [name.strip() for name in types.split(",") if name.strip()]


@app.command("set")
def set_chunking(
    name: Name,
    *,
    chunking: MethodOption = Method.recursive,
    chunk_size: ChunkSize = 800,
    chunk_overlap: ChunkOverlap = 400,
    separator: Separators = None,
    regex: Regex = False,
    keep_separator: KeepSeparator = None,
    mask_pii: MaskPii = None,
    url: DatabaseUrl = None,
) -> None:
    """Cut, or mask, the text of a vectorizer in another way; all its rows are queued.

    What is left out is not kept: it gets the default. Chunks that stay the same keep their
    vectors; old chunks are found until their rows are done.

    \b
    Examples:
      pgstack chunking set blog --chunking sentence --chunk-size 600 --chunk-overlap 0
      pgstack chunking set ticket --mask-pii email,phone
      pgstack chunking set wiki --chunking markdown --chunk-overlap 0
    """
    from pgstack import chunking as library
    from pgstack import target

    wanted = library.Chunking(
        method=chunking.value,
        size=chunk_size,
        overlap=chunk_overlap,
        separators=unescaped(separator, regex=regex),
        is_regex=regex,
        keep_separator=kept(keep_separator),
        mask_pii=split_types(mask_pii),
    )
    with target.connect(url) as conn:
        queued = library.change(conn, name, wanted)
    message(f"{name}: {queued:,} rows are queued" if queued else f"{name} does so already")
