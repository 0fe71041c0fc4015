"""Settings: which value holds, and what cannot be one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

Conn = psycopg.Connection[Any]


@pytest.fixture
def stranger(conn: Conn) -> Iterator[str]:
    """A role with no rights but everybody's, made in the rolled-back transaction."""
    name = f"stranger_{uuid.uuid4().hex[:8]}"
    conn.execute(sql.SQL("create role {}").format(sql.Identifier(name)))
    yield name
    conn.execute("reset role")


def setting(conn: Conn, name: str) -> tuple[str, str]:
    """The value in force, and where it comes from."""
    row = conn.execute(
        "select value, source, _pgstack.setting_value(name) from pgstack.settings where name = %s",
        (name,),
    ).fetchone()
    assert row is not None
    assert row[0] == row[2]
    return row[0], row[1]


def refused(conn: Conn, sqlstate: str, query: str, *params: Any) -> psycopg.Error:
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        conn.execute(query.encode(), params)
    assert caught.value.sqlstate == sqlstate
    assert caught.value.diag.message_hint
    return caught.value


def test_session_before_database_before_default(conn: Conn) -> None:
    assert setting(conn, "query_cache") == ("on", "default")
    conn.execute("select pgstack.configure('query_cache', 'off')")
    assert setting(conn, "query_cache") == ("off", "database")
    conn.execute("set local pgstack.query_cache = on")
    assert setting(conn, "query_cache") == ("on", "session")
    conn.execute("set local pgstack.query_cache = ''")  # what reset leaves behind
    assert setting(conn, "query_cache") == ("off", "database")
    conn.execute("select pgstack.configure('query_cache', null)")
    assert setting(conn, "query_cache") == ("on", "default")


def test_every_default_is_a_value_that_may_be_set(conn: Conn) -> None:
    rows = conn.execute("select name, default_value, description from pgstack.settings").fetchall()
    assert len(rows) >= 10
    for name, default, description in rows:
        assert description.endswith(".")
        conn.execute("select pgstack.configure(%s, %s)", (name, default))
        assert setting(conn, name) == (default, "database")


BAD = [
    ("embedding_model", ""),
    ("embedding_model", "two words"),
    ("request_timeout", "soon"),
    ("request_timeout", "60"),
    ("request_timeout", "-1s"),
    ("request_timeout", "9" * 30 + "h"),
    ("query_cache", "maybe"),
    ("query_cache", "ON"),
    ("query_cache_size", "-1"),
    ("query_cache_size", "9" * 30),
    ("query_cache_ttl", "1d; drop table x"),
    ("lease", "60s\n"),
    ("max_attempts", "0"),
    ("index_method", "ivfflat"),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_is_refused(conn: Conn, name: str, value: str) -> None:
    error = refused(conn, "PS007", "select pgstack.configure(%s, %s)", name, value)
    assert name in str(error)
    assert setting(conn, name)[1] == "default"


@pytest.mark.parametrize(("name", "value"), [pair for pair in BAD if pair[1]])
def test_a_bad_value_of_a_session_is_refused_when_used(conn: Conn, name: str, value: str) -> None:
    conn.execute("select set_config(%s, %s, true)", (f"pgstack.{name}", value))
    error = refused(conn, "PS007", "select _pgstack.setting_value(%s)", name)
    assert name in str(error)


@pytest.mark.parametrize("name", ["no_such_setting", "version", "", None])
def test_an_unknown_setting_is_refused(conn: Conn, name: str | None) -> None:
    refused(conn, "PS015", "select pgstack.configure(%s, 'x')", name)
    refused(conn, "PS015", "select pgstack.configure(%s, null)", name)


def test_only_the_owner_changes_the_database(conn: Conn, stranger: str) -> None:
    conn.execute(sql.SQL("set local role {}").format(sql.Identifier(stranger)))
    error = refused(conn, "PS014", "select pgstack.configure('query_cache', 'off')")
    assert error.diag.message_hint == "For this session alone: set pgstack.query_cache = 'off';"
    refused(conn, "PS014", "select pgstack.configure('query_cache', null)")
    assert setting(conn, "query_cache") == ("on", "default")
    conn.execute("set local pgstack.query_cache = 'off'")
    assert setting(conn, "query_cache") == ("off", "session")


def test_a_session_does_not_say_which_hosts_are_allowed(conn: Conn) -> None:
    conn.execute("set local pgstack.model_hosts = 'http://evil:1'")
    assert setting(conn, "model_hosts") == ("", "default")
    row = conn.execute("select _pgstack.model_host_allowed('http://evil:1')").fetchone()
    assert row == (False,)


def test_durations_are_read_as_intervals(conn: Conn) -> None:
    for text, seconds in (("250ms", 0.25), ("1.5 s", 1.5), ("2min", 120), ("1h", 3600)):
        conn.execute("select pgstack.configure('request_timeout', %s)", (text,))
        row = conn.execute(
            "select extract(epoch from _pgstack.setting_interval('request_timeout'))::float8"
        ).fetchone()
        assert row == (seconds,)
