"""Rules that the text of sql/ must keep; what the database makes of it: test_catalogue.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from pgstack import errors

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "sql").glob("*.sql"))
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in FILES}

# A quoted string, or anything up to the semicolon that is not in one.
RAISE = re.compile(r"raise exception\b((?:'(?:[^']|'')*'|[^';])*);", re.I)
HEADER = re.compile(
    r"^\s*create or replace function\s+(?P<name>[\w.]+)\s*\((?P<header>.*?)\bas\s+\$", re.M | re.S
)


class Raise(NamedTuple):
    where: str
    text: str


def without_comments(text: str) -> str:
    """The SQL with comment lines blanked, so that line numbers stay."""
    return re.sub(r"(?m)^\s*--.*$", "", text)


def raises() -> Iterator[Raise]:
    for name, text in TEXTS.items():
        plain = without_comments(text)
        for match in RAISE.finditer(plain):
            line = plain.count("\n", 0, match.start()) + 1
            yield Raise(f"sql/{name}:{line}", match.group(1))


def test_every_error_has_a_code_and_says_what_to_do() -> None:
    bare = [
        found.where
        for found in raises()
        if not re.search(r"\berrcode\s*=", found.text) or not re.search(r"\bhint\s*=", found.text)
    ]
    assert bare == []


# Raised in statements of people who never called pgstack: what they try again by.
PLAIN_CODES = {"serialization_failure"}


def test_every_code_is_one_of_ours() -> None:
    known = {cls.sqlstate for cls in errors.PgstackError.__subclasses__()} | PLAIN_CODES
    foreign = {
        found.where: code
        for found in raises()
        for code in re.findall(r"errcode\s*=\s*'(\w+)'", found.text)
        if code not in known
    }
    assert foreign == {}


def test_every_code_is_in_use() -> None:
    sql = "\n".join(TEXTS.values())
    folders = [ROOT / "pgstack", ROOT / "cli"]
    python = "\n".join(p.read_text() for folder in folders for p in folder.rglob("*.py"))
    idle = [
        cls.__name__
        for cls in errors.PgstackError.__subclasses__()
        if f"'{cls.sqlstate}'" not in sql and not re.search(rf"\b{cls.__name__}\(", python[1:])
    ]
    assert idle == []


def test_codes_are_unique() -> None:
    codes = [cls.sqlstate for cls in errors.PgstackError.__subclasses__() if cls.sqlstate]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"PS0\d\d", code) for code in codes)


# tests/sql/test_catalogue.py has the reasons.
INLINED = {"_pgstack.content_version", "_pgstack.key_digest", "_pgstack.setting_catalogue"}


@pytest.mark.parametrize("name", TEXTS)
def test_every_function_states_what_it_may_do(name: str) -> None:
    silent = []
    for match in HEADER.finditer(TEXTS[name]):
        header = match["header"]
        stated = (
            re.search(r"\b(volatile|stable|immutable)\b", header)
            and re.search(r"\bsecurity (invoker|definer)\b", header)
            and (re.search(r"\bset search_path = ", header) or match["name"] in INLINED)
        )
        if not stated:
            silent.append(match["name"])
    assert silent == []


@pytest.mark.parametrize("name", TEXTS)
def test_a_file_opens_by_saying_what_family_it_holds(name: str) -> None:
    # A first line may be for the loader: "-- unless extension: ai".
    assert re.match(r"(--( unless extension: \w+)?\n)*-- Family: ", TEXTS[name])


def test_no_file_makes_a_table() -> None:
    for name, text in TEXTS.items():
        statements = re.findall(r"(?im)^(create (?:unlogged )?table|alter table)\b.*$", text)
        assert statements == [], f"sql/{name}: tables belong in pgstack/migrations/"


def test_dynamic_sql_is_formatted_not_glued() -> None:
    """What follows `execute` is a literal or format(...); a || inside its arguments is a name."""
    glued = []
    for name, text in TEXTS.items():
        plain = re.sub(r"'(?:[^']|'')*'", "''", without_comments(text))
        while (shorter := re.sub(r"\([^()]*\)", "", plain)) != plain:
            plain = shorter
        for match in re.finditer(r"\bexecute\b([^;]*);", plain):
            if "||" in match.group(1).split(" using ")[0]:
                glued.append(f"sql/{name}: execute{match.group(1)}")
    assert glued == []
