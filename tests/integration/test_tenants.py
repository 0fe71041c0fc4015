"""Tenants: whatever one tries with plain SQL, it reads no row of another's.

An attack is a line of ``ATTACKS``: statements that bob runs on every kind of table (estate.py).
It proves itself: the same statements show alice her heirloom, or else the owner.  Rows,
notices, errors with all their details, and plans count as seen; so do vectors.

Left out is what PostgreSQL does not hide: row estimates in plans, and how long things take.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator

import pytest

from tests.conftest import Server, Worker, cloned
from tests.integration.conftest import Models
from tests.integration.estate import SECRET, SOURCES, Estate, seen

# Plans that evaluate conditions at other places.
PLANS = (
    "",
    "set local enable_seqscan = off;",
    "set local enable_indexscan = off; set local enable_bitmapscan = off;",
    "set local enable_hashjoin = off; set local enable_mergejoin = off;",
    "set local enable_nestloop = off; set local enable_hashjoin = off;",
)

ATTACKS = {
    "the source": "select r::text from {t} as r",
    "its text": "select r.{content} from {t} as r",
    "chunks": "select r::text from {store} as r",
    "vectors": "select r.{embedding} from {store} as r",
    "the view": "select r::text from {view} as r",
    "row security off": "set local row_security = off; select r::text from {store} as r",
    "sample": "select r::text from {store} as r tablesample system (100)",
    "loop": "do $$ declare r record; begin for r in select * from {store} loop "
    "raise notice '%', r; end loop; end $$",
    "copy": "create temporary table c as select {chunk} from {store}; select c::text from c",
    "prepared": "prepare q as select {chunk} from {store}; execute q; deallocate q",
    "cursor": "declare c cursor for select {chunk} from {store}; fetch all from c",
    "nearest": "select {chunk} from {store} order by {embedding} <=> pgstack.embed('x') limit 20",
    "nearest in the view": "select r::text from {view} as r "
    "order by {embedding} <=> pgstack.embed('x') limit 20",
    "near enough": "select {chunk} from {store} where {embedding} <=> pgstack.embed('x') < 3",
    "distances": "select {embedding} <-> array_fill(0, array[384])::vector, {chunk} from {store}",
    "oracle": "select reverse('moolrieh') where exists "
    "(select from {store} where {chunk} like '%moolrieh%' or reverse({chunk}) like '%moolrieh%')",
    "known keys": "select {chunk} from {store} as r where id::text in ({keys})",
    "leaky condition": "select from {store} where bob.peek({chunk})",
    "leaky condition on vectors": "select from {store} where bob.peek({embedding}::text)",
    "leaky condition in the view": "select from {view} where bob.peek({chunk})",
    "leaky condition on the source": "select from {t} where bob.peek({content})",
    "leaky operator": "select from {store} where {chunk} operator(bob.===) 'x'",
    "leaky join": "select from {store} as r join bob.bait as b on bob.peek(r.{chunk}, b.id)",
    "leaky order": "select from {store} order by bob.peek({chunk})",
    "leaky group": "select bob.gather({chunk}) from {store}",
    "leaky filter": "select count(*) filter (where bob.peek({chunk})) from {store}",
    "leaky join of both": "select from {t} as k join {store} as r "
    "on bob.peek(k.{content}, r.{chunk})",
    "leaky outer join": "select from bob.bait as b left join {store} as r on bob.peek(r.{chunk})",
    "leaky subquery": "select from bob.bait as b "
    "where exists (select from {store} as r where bob.peek(r.{chunk}, b.id))",
    "leaky window": "select from (select {chunk} as c, row_number() over (order by {chunk}) "
    "from {store}) as w where bob.peek(w.c)",
    "leaky case": "select case when bob.peek({chunk}) then 1 end from {store}",
    "leaky returning": "delete from {store} returning bob.peek({chunk})",
    "leaky update": "update {store} set {chunk} = {chunk} where bob.peek({chunk})",
    "leaky lock": "select from {store} where bob.peek({chunk}) for update",
    "failed cast": "select {chunk}::integer from {store}",
    "failed cast in a condition": "select from {store} where {chunk}::integer = 1",
    "failed vector": "select {chunk}::vector from {store}",
    "plan": "explain (analyze, verbose) select {chunk} from {store} where bob.peek({chunk})",
    "statistics": "select s::text from pg_stats as s where schemaname = '{schema}'",
    "claimed": "select _pgstack.work_claim(gen_random_uuid(), null, '{{}}', '{{}}'); "
    "select r::text from {store} as r",
    "loaded": "select l.* from _pgstack.vectorizer_plan('{n}') as p, _pgstack.work_load(p.id, "
    "(select array_agg(jsonb_build_object('tenant', '{a}', 'id', k.id)) from "
    "unnest(array[{keys}]) as k (id)), "
    "_pgstack.model_key(p.base_url, p.model, p.options, p.keep_alive), null) as l",
    "words": "select s::text from pgstack.search('{n}', 'number', mode => 'text') as s",
    "meaning": "select s::text from pgstack.search('{n}', 'number', mode => 'vector') as s",
    "both": "select s::text from pgstack.search('{n}', 'number', k => 50) as s",
    "filtered": "select s::text from pgstack.search('{n}', 'number', filter => "
    "jsonb_build_object('title', reverse('moolrieh'))) as s",
    "by row": "select s::text from pgstack.search('{n}', 'number', per => 'row', k => 9) as s",
    "diverse": "select s::text from pgstack.search('{n}', 'number', diversity => 0.5, k => 9) as s",
    "weighed": "select s::text from pgstack.search('{n}', 'number', fusion => 'convex') as s",
    "nearest to a vector": "select s::text from pgstack.search('{n}', 'number', mode => 'vector', "
    "embedding => array_fill(0.1, array[384])::vector, k => 50) as s",
    "filtered by text": "select s::text from pgstack.search('{n}', 'number', k => 50, "
    "filter => jsonb_build_object('{content}', jsonb_build_object('like', '%A %'))) as s",
    "filtered by what is not there": "select s::text from pgstack.search('{n}', 'number', k => 50, "
    'filter => \'{{"not": {{"{content}": "x"}}}}\') as s',
    "typed": "select s::text from {view}_search('number', k => 9) as s",
    "typed, by words": "select s::text from {view}_search('number', mode => 'text') as s",
    "like a row of alice's": "select s::text from "
    "pgstack.similar('{n}', '{key}'::jsonb, 50, per => 'chunk') as s",
    "like a row of bob's": "select s::text from "
    "pgstack.similar('{n}', '{own_key}'::jsonb, 50, per => 'chunk') as s",
    "table of words": "select r::text from {words} as r",
    "leaky condition on words": "select from {words} as r where bob.peek(r::text)",
    "explained": "select s::text from pgstack.explain_search('{n}', 'number', k => 50) as s",
    "own words": "set local pgstack.text_config = 'bob.words'; "
    "select s::text from pgstack.search('{n}', 'number', mode => 'text') as s",
    "answer": "select a::text from pgstack.ask('{n}', 'Which number?', k => 20) as a",
    "sources of an answer": "select _pgstack.ask_sources('{n}', 'Which number?', 20)",
}
# PostgreSQL's own: statistics are for whoever has select, whether he may use the schema or not.
ALLOWED = {("closed", "statistics")}
CASES = [(name, attack) for name in SOURCES for attack in ATTACKS if (name, attack) not in ALLOWED]


@pytest.fixture(scope="module")
def estate(
    server: Server, template: str, models_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Estate]:
    """The estate, in a database with a worker."""
    with cloned(server, template) as dsn:
        worker = Worker(dsn, models_url)
        estate = Estate(dsn)
        try:
            worker.wait_until_present()
            estate.build()
            yield estate
        finally:
            estate.close()
            worker.stop()


@pytest.mark.parametrize(("name", "attack"), CASES)
def test_bob_reads_no_row_of_alices(estate: Estate, name: str, attack: str) -> None:
    statement = ATTACKS[attack].format(**estate.names(name))
    plans = PLANS if "bob.peek" in statement else PLANS[:1]
    for plan in plans:
        shown = seen(estate.as_bob, plan + statement)
        assert not estate.tells(name, shown), f"{plan}\n{shown}"
    for conn in (estate.as_alice, estate.owner):
        if estate.tells(name, seen(conn, statement)):
            return
    pytest.fail(f"nobody sees anything this way: {seen(estate.owner, statement)}")


# ------------------------------------------------------------ every function there is

# What an argument gets, by its type: bob names his way to alice's rows, as far as he can.
ARGUMENTS = {
    "text": "'number'", "name": "'{n}'", "integer": "{id}", "bigint": "{id}", "regclass": "'{t}'",
    "oid": "'{t}'::regclass", "jsonb": "'{{}}'", "jsonb[]": "array['{{\"id\": \"a1\"}}']::jsonb[]",
    "uuid": "gen_random_uuid()", "interval": "'1 s'", "boolean": "true", "text[]": "array['{n}']",
    "name[]": "array['{content}']", "integer[]": "array[1]", "bytea[]": "array['x'::bytea]",
    "double precision": "1", "real": "1", "timestamp with time zone": "now()",
    "_pgstack.vectorizer_plan": "(select p from _pgstack.vectorizer_plan('{n}') as p)",
    "anyelement": "1", "regconfig": "'simple'",
}  # fmt: skip
# Arguments that name a vectorizer or a table.
NAMED = {"vectorizer": "'{n}'", "collection": "'{n}'", "relation": "'{t}'", "source": "'{t}'"}
FUNCTIONS = """
    select
      p.oid::regproc::text, p.oid::regprocedure::text, p.pronargs - p.pronargdefaults,
      coalesce(p.proargnames, '{}'), array(
        select format_type(a.type, null)
        from unnest(p.proargtypes) with ordinality as a (type, nr) order by a.nr
      )
    from pg_proc as p
    where p.pronamespace::regnamespace::text in ('ai', 'pgstack', '_pgstack', 'estate')
      and p.prokind = 'f' and p.prorettype <> 'trigger'::regtype
      and has_function_privilege(p.oid, 'execute')
    order by 2
"""


def calls(estate: Estate, name: str) -> dict[str, str]:
    """A call of every function bob may execute, by its signature."""
    names = estate.names(name)
    estate.as_bob.execute("set search_path = pg_catalog")
    found = {}
    for function, signature, needed, arguments, types in estate.as_bob.execute(FUNCTIONS):
        given = []
        for nr, kind in enumerate(types[:needed]):
            label = arguments[nr] if nr < len(arguments) else ""
            template = NAMED.get(label) if kind in ("text", "regclass") else None
            if template is None and label == "name":
                template = NAMED["vectorizer"]
            given.append((template or ARGUMENTS.get(kind, f"null::{kind}")).format(**names))
        found[signature] = f"select f::text from {function}({', '.join(given)}) as f"
    estate.as_bob.execute("reset search_path")
    return found


@pytest.mark.parametrize("name", ["own", "plain"])
def test_no_function_tells_bob_more(estate: Estate, name: str) -> None:
    """Also one that is new: it needs no line here."""
    limits = "set local statement_timeout = '1s'; set local pgstack.request_timeout = '1s';"
    told = {}
    shows_alice = set()
    for signature, call in calls(estate, name).items():
        shown = seen(estate.as_bob, limits + call)
        if estate.tells(name, shown):
            told[signature] = shown
        if estate.tells(name, seen(estate.as_alice, limits + call)):
            shows_alice.add(signature.partition("(")[0])
    assert told == {}
    if name != "plain":  # whose chunks nobody but its owner may read
        assert shows_alice >= {"pgstack.search", "pgstack.ask", "_pgstack.ask_sources"}


# ------------------------------------------------------------------ private tables

RELATIONS = """
    select c.oid::regclass::text from pg_class as c
    where c.relnamespace::regnamespace::text in ('ai', 'pgstack', '_pgstack')
      and c.relkind in ('r', 'v', 'm', 'p', 'f')
    order by 1
"""
# Where the owner finds traces of alice's row, and of her question.
TRACES = {
    "_pgstack.embedding_cache", "_pgstack.query_cache", "_pgstack.request", "_pgstack.vectorizer",
    "_pgstack.work", "ai._vectorizer_errors", "_pgstack.eval_query", "_pgstack.eval_result",
    "pgstack.vectorizer_errors", "pgstack.vectorizer_status",
}  # fmt: skip


@pytest.fixture
def traces(estate: Estate, models_url: str) -> Iterator[Estate]:
    """A row waits in a queue, one was refused: their keys and what was said of them are secret."""
    models = Models(models_url)
    owner = estate.owner
    owner.execute("select pgstack.configure('embedding_cache', 'on')")
    owner.execute("create table estate.keyed (id text primary key, body text)")
    owner.execute("select pgstack.create_vectorizer('estate.keyed', 'body', dimensions => 384)")
    models.misbehave(fail_if_contains="refuse", fail_if_status=400)
    owner.execute(
        "insert into estate.keyed values ('heirloom 1', 'refuse'), ('heirloom 2', 'alone')"
    )
    owner.execute("select pgstack.wait_until_fresh('keyed')")
    models.clear()
    owner.execute("select pgstack.pause_vectorizer('keyed')")
    owner.execute("insert into estate.keyed values ('heirloom 3', 'queued')")
    owner.execute(
        "update _pgstack.vectorizer as v set last_error = 'cannot embed \"heirloom\"' "
        "from ai.vectorizer as a where a.id = v.vectorizer_id and a.name = 'keyed'"
    )
    estate.as_alice.execute("select pgstack.embed('heirloom')")
    estate.as_alice.execute(
        "insert into _pgstack.eval_set (name) values ('hers');"
        "insert into _pgstack.eval_query select id, 'q', 'heirloom' from _pgstack.eval_set;"
        "insert into _pgstack.eval_run "
        "  (set_id, vectorizer, mode, k, seed, config, judged, queries) "
        "select id, 'keyed', 'text', 1, 1, '{}', '', 1 from _pgstack.eval_set;"
        "insert into _pgstack.eval_result select id, 'q', 1, 'heirloom 1' from _pgstack.eval_run"
    )
    row = owner.execute(
        "select left(pgstack.embed('heirloom')::text, 60), "
        "left(pgstack.embed('alone', null, 'document')::text, 60)"
    ).fetchone()
    assert row is not None
    estate.vectors["keyed"] = list(row)
    try:
        yield estate
    finally:
        models.clear()
        estate.as_alice.execute("delete from _pgstack.eval_set")
        owner.execute("select pgstack.drop_vectorizer('keyed', drop_data => true)")
        owner.execute("drop table estate.keyed")


@pytest.fixture
def question(traces: Estate, models_url: str) -> Iterator[None]:
    """A question of alice's is under way, all the time."""
    Models(models_url).misbehave(hang=True)
    asking = threading.Thread(
        target=lambda: seen(traces.as_alice, "select pgstack.generate('the heirloom')")
    )
    asking.start()
    until = time.monotonic() + 5
    while not traces.owner.execute("select from _pgstack.request").fetchall():
        assert time.monotonic() < until
    yield
    Models(models_url).clear()
    asking.join(20)


@pytest.mark.usefixtures("question")
def test_private_tables_and_views_tell_bob_nothing(traces: Estate) -> None:
    relations = [row[0] for row in traces.owner.execute(RELATIONS)]
    shown = {name: seen(traces.as_bob, f"select r::text from {name} as r") for name in relations}
    assert {name: text for name, text in shown.items() if traces.tells("keyed", text)} == {}
    found = {
        name
        for name in relations
        if traces.tells("keyed", seen(traces.owner, f"select r::text from {name} as r"))
    }
    assert found >= TRACES
    assert any("_q_" in name for name in found)
    assert any("_q_failed_" in name for name in found)


# ------------------------------------------------------------------------ the bridge


def test_the_bridge_shows_no_question_of_others(traces: Estate) -> None:
    """Its sessions are one role's: each may look what the others run."""
    spy = (
        "select a.query from dblink('pgstack', 'select query from pg_stat_activity "
        "where usename = current_user and pid <> pg_backend_pid()') as a (query text)"
    )
    bob = traces.as_bob
    bob.execute("select _pgstack.bridge_ensure()")
    asking = threading.Thread(
        target=lambda: [
            seen(traces.as_alice, "select pgstack.embed('heirloom' || random())") for _ in range(20)
        ]
    )
    asking.start()
    heard = set()
    while asking.is_alive():
        heard |= {row[0] for row in bob.execute(spy)}
    bob.execute("select _pgstack.bridge_reset()")
    assert any(query.startswith("select ") for query in heard)
    assert not [query for query in heard if SECRET in query or re.search("[0-9a-f]{8}-", query)]


# -------------------------------------------------------------------- as time goes by


def test_what_is_revoked_is_closed_at_once(estate: Estate) -> None:
    """Also for a session that has read there, and whose plans are kept."""
    statement = "select s::text from pgstack.search('own', 'number', mode => 'text') as s"
    for _ in range(7):
        assert SECRET in seen(estate.as_alice, statement)
    estate.owner.execute(f"revoke select on estate.own from {estate.alice}".encode())
    try:
        assert seen(estate.as_alice, statement).startswith("PS014")
    finally:
        estate.owner.execute(f"grant select on estate.own to {estate.alice}".encode())


def test_a_key_given_to_another_tenant_shows_no_old_chunk(estate: Estate) -> None:
    """Chunks go with their row, in its own transaction, not when a worker comes by."""
    owner = estate.owner
    owner.execute("select pgstack.pause_vectorizer('own')")
    try:
        with owner.transaction(force_rollback=True):
            owner.execute("delete from estate.own where id = 'a1'")
            owner.execute("insert into estate.own values ('a1', %s, '', 'new')", (estate.bob,))
            owner.execute(f"set local role {estate.bob}".encode())
            rows = owner.execute("select chunk from estate.own_embedding_store").fetchall()
            assert len(rows) == 3
            assert SECRET not in str(rows)
    finally:
        owner.execute("select pgstack.resume_vectorizer('own')")


def test_a_pooled_session_forgets_vectors_with_discard_all(estate: Estate) -> None:
    """A session remembers the vectors it asked for, whoever it acts as next."""
    memo = (
        "select string_agg(current_setting('pgstack.memo_' || i, true), ' ') "
        "from generate_series(0, 63) as i"
    )
    estate.as_alice.execute("select pgstack.embed('mine')")
    row = estate.as_alice.execute(memo.encode()).fetchone()
    assert row is not None
    assert "[" in row[0]
    estate.as_alice.execute("discard all")
    row = estate.as_alice.execute(memo.encode()).fetchone()
    assert row is not None
    assert "[" not in (row[0] or "")


def test_a_view_in_place_of_the_source_is_not_read(estate: Estate) -> None:
    """Its functions are its owner's, and would run with the rights of the worker."""
    owner = estate.owner
    with owner.transaction(force_rollback=True):
        owner.execute(
            f"""
            create table estate.swapped (id text primary key, body text);
            alter table estate.swapped owner to {estate.bob};
            select pgstack.create_vectorizer('estate.swapped', 'body', dimensions => 384);
            insert into estate.swapped values ('a', 'b');
            alter table estate.swapped rename to was;
            create view estate.swapped as select id, body from estate.was where bob.peek(body);
            alter view estate.swapped owner to {estate.bob};
            """.encode()
        )
        claim = "select _pgstack.work_claim(gen_random_uuid(), null, '{}', '{}')"
        assert "swapped" not in seen(owner, claim)
        problem = "select last_error from pgstack.vectorizer_status where name = 'swapped'"
        assert "no table any more" in seen(owner, problem)
