"""``pgstack chunking``: how vectorizers cut their text, and the options that say so."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from pgstack_cli.options import AsJson, DatabaseUrl, Name
from pgstack_cli.output import json_document, message, progress, table

if TYPE_CHECKING:
    from pgstack.chunking import Way

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


@app.command()
def lab(
    name: Annotated[
        str, typer.Argument(help="A vectorizer, a collection, or with --column a table.")
    ],
    *,
    column: Annotated[str | None, typer.Option("--column", help="Text column of a table.")] = None,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", metavar="METHOD[:SIZE[:OVERLAP]]", help="One way; once for each."),
    ] = None,
    sample: Annotated[int, typer.Option("--sample", min=1, help="Documents.")] = 100,
    judged: Annotated[
        str | None,
        typer.Option("--judged", metavar="SET", help="A judged set: `pgstack eval list`."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Default: the setting embedding_model.")
    ] = None,
    doc_column: Annotated[
        str | None, typer.Option("--doc-column", help="The column with the judged ids.")
    ] = None,
    max_texts: Annotated[
        int, typer.Option("--max-texts", min=1, help="Most texts that are embedded.")
    ] = 5000,
    seed: Annotated[int, typer.Option("--seed", help="Draws another sample.")] = 1,
    as_json: AsJson = False,
    url: DatabaseUrl = None,
) -> None:
    """Cut a sample of NAME's texts in several ways, and show what comes out.

    Without --method the usual ways are compared, behind the vectorizer's own. "cut" is the share
    of chunks that begin or end inside a sentence, "repeated" how often a text is said. With
    --judged the chunks are embedded, and each way is scored by search in the sample; p: how
    likely so great a difference from the first way is by chance. Writes nothing.

    --json: one document, an array of the rows of pgstack.chunking_lab().

    \b
    Examples:
      pgstack chunking lab handbook
      pgstack chunking lab blog --column body --method recursive:800:400 --method sentence:400
      pgstack chunking lab handbook --judged questions --sample 300 --json
    """
    from pgstack import chunking as library
    from pgstack import target

    wanted = library.Lab(
        methods=[library.parse_method(text) for text in method] if method else None,
        sample=sample,
        judged=judged,
        model=model,
        doc_column=doc_column,
        max_texts=max_texts,
        seed=seed,
    )
    with target.connect(url) as conn, progress("embedding", unit="texts") as advance:
        found = library.lab(conn, name, wanted, column=column, progress=advance)
    if as_json:
        json_document([vars(way) for way in found])
    else:
        print_ways(found)


def print_ways(found: list[Way]) -> None:
    """Print what ways of cutting make of a sample, a line each."""
    judged = found[0].queries
    heads = [
        "way",
        "chunks",
        "characters",
        "p95",
        "most",
        "tokens",
        "most",
        "cut",
        "repeated",
        "MB/s",
    ]
    lines = [
        [
            *(_way(way), way.chunks, way.median_chars, way.p95_chars, way.max_chars),
            *(way.median_tokens, way.max_tokens, _share(way.cut_sentences)),
            *(_share(way.duplication), round(way.mb_per_second, 1)),
        ]
        for way in found
    ]
    if judged:
        heads += ["nDCG@10", "95 %", "recall@10", "p"]
        for line, way in zip(lines, found, strict=True):
            bounds = f"{_share(way.ndcg_low)}-{_share(way.ndcg_high)}"
            line += [_share(way.ndcg), bounds, _share(way.recall), _share(way.p_value)]
    table(heads, lines)
    more = f", {judged} queries, {sum(way.texts or 0 for way in found):,} texts" if judged else ""
    message(f"{found[0].documents} documents{more}")


def _way(way: Way) -> str:
    """Return a way of cutting as --method takes it, with its options behind."""
    options = "".join(f" {key}={value}" for key, value in (way.options or {}).items())
    return ("none" if way.method == "none" else f"{way.method}:{way.size}:{way.overlap}") + options


def _share(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
