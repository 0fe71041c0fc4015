"""Do pgstack.chunk() and LangChain's splitters cut every text at hand in the same way?

Texts: all of $PGSTACK_DATA_DIR (descriptions, glosses, plots, manuals, papers, code, a novel in
one piece), in every language there; every fifth with \\r\\n for \\n.  Arguments: :func:`settings`,
some 150 of them; each text meets one, then the next text the next, so that all meet all.
tests/sql/test_chunk_corpora.py does so with a sample.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from langchain_text_splitters import (
    CharacterTextSplitter,
    Language,
    RecursiveCharacterTextSplitter,
)

_KEEP: dict[str | None, bool | str | None] = {
    None: None,
    "start": "start",
    "end": "end",
    "none": False,
}
_LISTS = [
    ["\n\n", "\n", ".", "?", "!", " ", ""],
    ["\n\n", "\n", " ", ""],
    ["\n", ". ", ", "],
    ["。", "、", "\n", ""],
]
_LANGUAGES = [Language.MARKDOWN, Language.PYTHON, Language.HTML, Language.LATEX, Language.RST]
_REGEX_LISTS = [
    [r"(?<=\.)\s+", r"\s+", ""],
    [r"\n{2,}", r"\n", r"(?<=[.?!])", ""],
    [r"\r?\n", r"[;:,]", r"\s"],
]
_REGEXES = [r"(?<=\.)\s+", r"\s+", r"\n{2,}", r"[.!?]\s", r"(?=\n)", r"[^\S\n]+"]
_SEPARATORS = ["\n\n", "\n", " ", ". ", "。", ""]
# Size and overlap in characters; most texts have a few hundred.
_SIZES = [(800, 400), (200, 0), (120, 60), (40, 40)]


@dataclass(frozen=True)
class Setting:
    """Arguments of pgstack.chunk(): size and overlap in characters."""

    method: str
    size: int
    overlap: int
    separators: list[str]
    is_regex: bool
    keep: str | None
    strip: bool

    @property
    def joins(self) -> bool:
        """Tell whether a chunk may be joined from what does not stand side by side."""
        return (self.keep or {"character": "none"}.get(self.method)) == "none"

    def langchain(self) -> RecursiveCharacterTextSplitter | CharacterTextSplitter:
        """Return LangChain's splitter with these arguments."""
        options: dict[str, Any] = {
            "chunk_size": self.size,
            "chunk_overlap": self.overlap,
            "is_separator_regex": self.is_regex,
            "strip_whitespace": self.strip,
        }
        if self.keep is not None:
            options["keep_separator"] = _KEEP[self.keep]
        if self.method == "recursive":
            return RecursiveCharacterTextSplitter(separators=self.separators, **options)
        return CharacterTextSplitter(separator=self.separators[0], **options)


def settings() -> list[Setting]:
    """Return all arguments to compare with."""
    recursive = [(separators, False) for separators in _LISTS]
    recursive += [(separators, True) for separators in _REGEX_LISTS]
    recursive += [
        (RecursiveCharacterTextSplitter.get_separators_for_language(language), True)
        for language in _LANGUAGES
    ]
    character = [([separator], False) for separator in _SEPARATORS]
    character += [([pattern], True) for pattern in _REGEXES]
    sizes = itertools.cycle(_SIZES)
    strips = itertools.cycle([True, True, False])
    return [
        Setting(method, *next(sizes), separators, is_regex, keep, next(strips))
        for method, kinds in (("recursive", recursive), ("character", character))
        for separators, is_regex in kinds
        for keep in _KEEP
        for _ in range(2 if method == "recursive" else 1)
    ]


@dataclass
class Tally:
    """What was compared, and what differed (at most ten of it)."""

    texts: int = 0
    chars: int = 0
    chunks: int = 0
    equal: int = 0  # texts
    exact: int = 0  # chunks whose offsets cut them out of the text
    joined: int = 0  # chunks of settings that join what did not stand side by side
    different: list[tuple[str, Setting]] = field(default_factory=list)
    misplaced: list[tuple[str, Setting]] = field(default_factory=list)

    def add(self, text: str, setting: Setting, rows: Sequence[tuple[int, int, str]]) -> None:
        """Count one text and its chunks."""
        self.texts += 1
        self.chars += len(text)
        self.chunks += len(rows)
        if [row[2] for row in rows] == setting.langchain().split_text(text):
            self.equal += 1
        elif len(self.different) < 10:
            self.different.append((text, setting))
        for start, end, chunk in rows:
            if text[start:end] == chunk:
                self.exact += 1
            elif setting.joins and 0 <= start <= end <= len(text):
                self.joined += 1
            elif len(self.misplaced) < 10:
                self.misplaced.append((text, setting))


def corpora(data: Path) -> Iterator[tuple[str, Iterator[str]]]:
    """Yield the name of every corpus in ``data`` and its texts."""
    for path in sorted(
        [*data.glob("corpora/*/*.jsonl.gz"), *data.glob("retrieval/*/corpus.jsonl")]
    ):
        yield "/".join(path.relative_to(data).parts[1:]), _json_texts(path)
    paths = sorted(
        path
        for path in data.glob("documents/normal/*")
        if path.suffix in {".txt", ".md", ".html", ".csv", ".xml", ".ipynb", ".rtf", ".eml"}
    )
    yield "documents/normal", (_read(path) for path in paths)
    yield "documents/hostile blns.txt", iter([_read(data / "documents/hostile/blns.txt")])


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace").replace("\0", "")


def json_lines(path: Path, step: int = 1) -> Iterator[dict[str, Any]]:
    """Yield every ``step``-th object of a file of JSON lines."""
    opening = gzip.open if path.suffix == ".gz" else open
    with opening(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, itertools.islice(lines, 0, None, step))


def _json_texts(path: Path) -> Iterator[str]:
    for said in json_lines(path):
        yield str(said.get("text") or said)


def compare(
    conn: psycopg.Connection[Any], texts: Iterator[str], *, most: int | None = None, first: int = 0
) -> Tally:
    """Cut ``texts``, at most ``most``, in both ways; ``first``: the setting to begin with."""
    tally = Tally()
    every = settings()
    batches: list[list[str]] = [[] for _ in every]
    for n, text in enumerate(itertools.islice(texts, most)):
        if not text.strip():
            continue  # LangChain leaves white space in some cases; here it gives no rows
        at = (n + first) % len(every)
        batches[at].append(text.replace("\r\n", "\n").replace("\n", "\r\n") if n % 5 == 4 else text)
        if sum(map(len, batches[at])) > 1_000_000:
            _compare(conn, every[at], batches[at], tally)
            batches[at] = []
    for setting, batch in zip(every, batches, strict=True):
        _compare(conn, setting, batch, tally)
    return tally


def _compare(
    conn: psycopg.Connection[Any], setting: Setting, texts: list[str], tally: Tally
) -> None:
    rows = conn.execute(
        "select array_agg(c.start_char order by c.seq), array_agg(c.end_char order by c.seq), "
        "array_agg(c.chunk order by c.seq) from unnest(%s::text[]) with ordinality as t (body, nr) "
        "left join lateral pgstack.chunk(t.body, %s, %s, %s, %s, %s, %s, %s) as c on true "
        "group by t.nr order by t.nr",
        (
            texts,
            setting.method,
            setting.size,
            setting.overlap,
            setting.separators,
            setting.is_regex,
            setting.keep,
            setting.strip,
        ),
    ).fetchall()
    for text, (starts, ends, chunks) in zip(texts, rows, strict=True):
        found = [] if chunks == [None] else list(zip(starts, ends, chunks, strict=True))
        tally.add(text, setting, found)
