"""Query vectors are remembered, each role's for itself; SQL names no foreign model server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, LiteralString

import psycopg

from pgstack.db import connect
from tests.integration.conftest import raises, value

Connection = psycopg.Connection[Any]
Models = Any  # the class of the fixture `models`


# --------------------------------------------------------------------------- cache


def test_a_repeated_text_costs_no_call(served: Connection, served_url: str, models: Models) -> None:
    served.execute("select pgstack.embed('again and again')")
    served.execute("select pgstack.embed('again and again')")
    with connect(served_url, autocommit=True) as other:
        other.execute("select pgstack.embed('again and again')")
        other.execute("select pgstack.embed('again and again', 'all-minilm')")
    assert models.asked("again and again") == 1
    assert value(served, "select count(*) from _pgstack.query_cache") == 1


def test_models_and_kinds_of_input_are_kept_apart(served: Connection, models: Models) -> None:
    text = "kept apart"
    assert value(served, "select vector_dims(pgstack.embed(%s))", text) == 384
    assert value(served, "select vector_dims(pgstack.embed(%s, 'deterministic:768'))", text) == 768
    served.execute("select pgstack.embed(%s, input_type => 'document')", (text,))
    assert models.asked(text) == 3
    served.execute("set pgstack.embedding_model = 'deterministic:768'")
    assert value(served, "select vector_dims(pgstack.embed(%s))", text) == 768
    assert models.asked(text) == 3


def test_another_default_model_counts_at_once(served: Connection) -> None:
    """Statements sent as one message share a statement_timestamp()."""
    dims = served.execute("""
        create temporary table dims (n serial, d integer);
        insert into dims (d) select vector_dims(pgstack.embed('one message'));
        set pgstack.embedding_model = 'deterministic:768';
        insert into dims (d) select vector_dims(pgstack.embed('one message'));
    """)
    dims = served.execute("select d from dims order by n")
    assert dims.fetchall() == [(384,), (768,)]
    served.execute("reset pgstack.embedding_model")
    served.execute("select pgstack.configure('embedding_model', 'deterministic:768')")
    assert value(served, "select vector_dims(pgstack.embed('one message'))") == 768


def test_the_cache_can_be_switched_off(served: Connection, models: Models) -> None:
    served.execute("set pgstack.query_cache = off")
    served.execute("select pgstack.embed('forget this')")
    served.execute("select pgstack.embed('forget this')")
    assert models.asked("forget this") == 2
    assert value(served, "select count(*) from _pgstack.query_cache") == 0


def test_one_role_does_not_profit_from_another(
    served: Connection, make_role: Callable[[], Connection], models: Models
) -> None:
    """Otherwise the time an answer takes would tell what others ask."""
    alice, bob = make_role(), make_role()
    for conn in (alice, bob, alice, bob):
        conn.execute("select pgstack.embed('our secret')")
    assert models.asked("our secret") == 2
    assert value(alice, "select count(*) from _pgstack.query_cache") == 1
    assert value(served, "select count(*) from _pgstack.query_cache") == 2
    role = bob.info.user
    served.execute("select pgstack.embed('our secret')")
    served.execute("set session authorization default")
    served.execute(f"set role {role}")
    served.execute("select pgstack.embed('our secret too')")
    served.execute("reset role")
    served.execute("select pgstack.embed('our secret too')")
    assert models.asked("our secret too") == 2


def test_nobody_can_put_a_vector_into_anothers_cache(
    served: Connection, make_role: Callable[[], Connection]
) -> None:
    alice, mallory = make_role(), make_role()
    mallory.execute("select pgstack.embed('open the bridge')")
    digest: LiteralString = "encode(sha256('query'), 'hex')"
    for payload in (
        "jsonb_build_object('model', 'all-minilm', 'input', array['wrong'], 'input_type', 'query', "
        f"'digest', {digest}, 'remember', true)",
        "jsonb_build_object('model', 'all-minilm', 'input', array['wrong', 'query'], "
        "'input_type', 'query', 'remember', true)",
        "jsonb_build_object('model', 'all-minilm', 'input', array['query'], "
        "'input_type', 'query', 'remember', true, 'options', '{}'::jsonb)",
    ):
        mallory.execute(
            f"""
            do $$
            declare
              _token uuid := gen_random_uuid(); _state text := 'waiting';
            begin
              perform from dblink('pgstack', format(
                'select _pgstack.bridge_post(%L, %L, %L, %L, %L)',
                _token, 'embed', {payload}, '{alice.info.user}', '10s'
              )) as a (t text);
              while _state = 'waiting' loop
                select s into _state from dblink('pgstack', format(
                  'select state from _pgstack.bridge_poll(%L)', _token
                )) as a (s text);
              end loop;
              if _state <> 'done' then
                raise exception 'the answer is %', _state;
              end if;
            end
            $$
            """  # type: ignore[arg-type]
        )
    assert value(served, "select count(*) from _pgstack.query_cache where asker = %s",
                 alice.info.user) == 0  # fmt: skip


def test_old_and_surplus_vectors_are_swept(served: Connection) -> None:
    for i in range(5):
        served.execute("select pgstack.embed(%s)", (f"text {i}",))
    served.execute("select pgstack.configure('query_cache_size', '2')")
    served.execute("select _pgstack.request_sweep()")
    newest = value(served, "select array_agg(digest) from _pgstack.query_cache")
    wanted = value(
        served, "select array_agg(sha256(t)) from unnest(array['text 3', 'text 4']::bytea[]) as t"
    )
    assert sorted(newest) == sorted(wanted)
    served.execute("update _pgstack.query_cache set created_at = now() - interval '2 d'")
    served.execute("select _pgstack.request_sweep()")
    assert value(served, "select count(*) from _pgstack.query_cache") == 0


# ---------------------------------------------------------------------------- hosts


def test_sql_names_no_other_host_unless_the_database_allows_it(
    served: Connection, visitor: Connection, models: Models
) -> None:
    visitor.execute("select pgstack.embed('open the bridge')")
    visitor.execute(f"set pgstack.model_hosts = '{models.url}'")
    ask = f"select ai.ollama_embed('all-minilm', 'over there', host => '{models.url}/')"
    with raises("PS011", models.url, hint="model_hosts"):
        visitor.execute(ask)  # type: ignore[arg-type]
    post = (
        "select * from dblink('pgstack', $q$select _pgstack.bridge_post(gen_random_uuid(), "
        f"""'embed', '{{"host": "{models.url}", "model": "all-minilm", "input": ["x"]}}', """
        "'x', '5s')$q$) as t (done text)"
    )
    with raises("PS011", models.url):
        visitor.execute(post)  # type: ignore[arg-type]
    served.execute(
        "select pgstack.configure('model_hosts', %s)", (f"http://other:1 , {models.url}/",)
    )
    visitor.execute(ask)  # type: ignore[arg-type]
    assert models.asked("over there") == 1
