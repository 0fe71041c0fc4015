"""What an installed database says about itself: comments, search paths, rights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, LiteralString, NamedTuple

import psycopg
import pytest

ROOT = Path(__file__).resolve().parents[2]
Conn = psycopg.Connection[Any]

# Hot SQL functions that PostgreSQL must inline go without a pinned search_path: it would
# stop that.  Each qualifies every name and operator in its body.  signature: reason
INLINED: dict[str, str] = {
    "_pgstack.content_version(content jsonb)": "twice a row embedded",
    "_pgstack.key_digest(key jsonb)": "several times a row embedded",
    "_pgstack.setting_catalogue()": "several times a search",
}


class Definer(NamedTuple):
    callers: str
    reason: str


def definers() -> dict[str, Definer]:
    found = {}
    for line in Path(__file__).with_name("definers.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            signature, callers, reason = (part.strip() for part in line.split("|"))
            found[signature] = Definer(callers, reason)
    return found


def column(conn: Conn, query: LiteralString) -> list[str]:
    """The first column of what the query returns."""
    return [row[0] for row in conn.execute(query)]


# format_type() and regprocedure leave out a schema that is on the path; an empty path shows all.
SIGNATURE: LiteralString = """
    n.nspname || '.' || p.proname || '('
    || replace(pg_get_function_identity_arguments(p.oid), ', ', ',') || ')'
"""
FUNCTIONS: LiteralString = """
    pg_proc as p
    join pg_namespace as n on n.oid = p.pronamespace and n.nspname in ('pgstack', '_pgstack')
"""


@pytest.mark.parametrize("schema", ["pgstack", "_pgstack"])
def test_every_schema_has_a_comment(conn: Conn, schema: str) -> None:
    query = "select obj_description(to_regnamespace(%s), 'pg_namespace')"
    row = conn.execute(query, (schema,)).fetchone()
    assert row is not None
    assert row[0]


def test_every_function_has_a_comment(conn: Conn) -> None:
    bare = column(
        conn,
        f"select {SIGNATURE} from {FUNCTIONS}"
        " where coalesce(obj_description(p.oid, 'pg_proc'), '') = '' order by 1",
    )
    assert bare == []


def test_every_relation_and_its_columns_have_comments(conn: Conn) -> None:
    bare = column(
        conn,
        """
        select format('pgstack.%s%s', c.relname, '.' || a.attname)
        from pg_class as c
        cross join lateral (
          select null::name as attname, 0 as attnum
          union all
          select a.attname, a.attnum from pg_attribute as a
          where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        ) as a
        where c.relnamespace = 'pgstack'::regnamespace and c.relkind in ('r', 'v', 'm', 'p', 'f')
          and coalesce(
            case
              when a.attnum = 0 then obj_description(c.oid, 'pg_class')
              else col_description(c.oid, a.attnum)
            end, ''
          ) = ''
        order by 1
        """,
    )
    assert bare == []


def test_every_type_and_sequence_has_a_comment(conn: Conn) -> None:
    bare = column(
        conn,
        """
        select t.typname from pg_type as t
        left join pg_class as c on c.oid = t.typrelid
        where t.typnamespace = 'pgstack'::regnamespace and t.typcategory <> 'A'
          and (c.oid is null or c.relkind = 'c')
          and obj_description(t.oid, 'pg_type') is null
          and obj_description(c.oid, 'pg_class') is null
        union all
        select c.relname from pg_class as c
        where c.relnamespace = 'pgstack'::regnamespace and c.relkind = 'S'
          and obj_description(c.oid, 'pg_class') is null
        """,
    )
    assert bare == []


def test_the_public_schema_holds_no_table(conn: Conn) -> None:
    query: LiteralString = """
        select relname from pg_class
        where relnamespace = 'pgstack'::regnamespace and relkind in ('r', 'p', 'f', 'm')
    """
    assert column(conn, query) == []


def test_every_function_pins_its_search_path(conn: Conn) -> None:
    loose = column(
        conn,
        f"""
        select {SIGNATURE} from {FUNCTIONS}
        where not exists (
          select from unnest(p.proconfig) as c (setting)
          where c.setting ~ '^search_path=(pg_catalog|"?pg_catalog"?, *)'
        )
        """,
    )
    assert sorted(loose) == sorted(INLINED)


def test_our_functions_in_pgais_schema_are_pinned_and_commented(conn: Conn) -> None:
    sql = "\n".join(path.read_text() for path in (ROOT / "sql").glob("*.sql"))
    ours = sorted(set(re.findall(r"create or replace function ai\.(\w+)", sql)))
    query = """
        select p.oid::regprocedure::text, obj_description(p.oid, 'pg_proc') is not null,
          exists (select from unnest(p.proconfig) as c (setting) where c.setting ~ '^search_path=')
        from pg_proc as p
        where p.pronamespace = 'ai'::regnamespace and p.proname = any (%s)
    """
    rows = conn.execute(query, (ours,)).fetchall()
    assert {name for name, _, pinned in rows if not pinned} == set()
    commented = {name.partition("(")[0].removeprefix("ai.") for name, has, _ in rows if has}
    assert commented == {name for name in ours if not name.startswith("_")}


def test_the_private_schema_comes_last_on_no_path(conn: Conn) -> None:
    """pg_temp unnamed is searched first, for tables: everybody may create one there."""
    loose = column(
        conn,
        f"""
        select {SIGNATURE} from {FUNCTIONS}
        cross join lateral unnest(p.proconfig) as c (setting)
        where c.setting like 'search_path=%' and c.setting not like '%pg_temp'
        """,
    )
    assert loose == []


def test_the_list_of_definer_functions_is_exact(conn: Conn) -> None:
    found = column(
        conn,
        f"""
        select n.nspname || '.' || p.proname || '(' || coalesce((
          select string_agg(format_type(a.type, null), ',' order by a.position)
          from unnest(p.proargtypes) with ordinality as a (type, position)
        ), '') || ')'
        from {FUNCTIONS} where p.prosecdef
        """,
    )
    assert sorted(found) == sorted(definers())
    assert all(definer.reason for definer in definers().values())


@pytest.mark.parametrize("signature", definers())
def test_a_definer_function_has_a_weak_owner_and_few_callers(conn: Conn, signature: str) -> None:
    row = conn.execute(
        """
        select r.rolsuper, r.rolcanlogin, has_function_privilege('public', p.oid, 'execute')
        from pg_proc as p join pg_roles as r on r.oid = p.proowner
        where p.oid = %s::regprocedure
        """,
        (signature,),
    ).fetchone()
    assert row is not None
    owner_is_super, owner_can_login, for_everybody = row
    assert not owner_is_super
    assert not owner_can_login
    assert for_everybody == (definers()[signature].callers == "public")


def test_views_read_with_the_rights_of_the_asker(conn: Conn) -> None:
    query: LiteralString = """
        select relname from pg_class
        where relnamespace in ('pgstack'::regnamespace, '_pgstack'::regnamespace) and relkind = 'v'
          and not coalesce(reloptions @> array['security_invoker=true'], false)
    """
    assert column(conn, query) == []


def test_nobody_else_may_create_in_our_schemas(conn: Conn) -> None:
    """Who could, would replace a function that others call: pgspot's PS002."""
    query: LiteralString = """
        select nspname from pg_namespace
        where nspname in ('pgstack', '_pgstack') and has_schema_privilege('public', oid, 'create')
    """
    assert column(conn, query) == []


def test_nobody_else_may_write_to_our_tables(conn: Conn) -> None:
    """Reading is decided table by table; writing goes through functions and row policies."""
    query: LiteralString = """
        select c.relname || ' ' || p.privilege
        from pg_class as c
        cross join unnest(array['insert', 'update', 'delete', 'truncate']) as p (privilege)
        where c.relnamespace = '_pgstack'::regnamespace and c.relkind in ('r', 'p')
          and not c.relrowsecurity
          and has_table_privilege('public', c.oid, p.privilege)
    """
    assert column(conn, query) == []


def test_only_owner_roles_that_are_known_own_our_objects(conn: Conn) -> None:
    query: LiteralString = """
        select distinct r.rolname from (
          select proowner as owner from pg_proc
          where pronamespace in ('pgstack'::regnamespace, '_pgstack'::regnamespace)
          union
          select relowner from pg_class
          where relnamespace in ('pgstack'::regnamespace, '_pgstack'::regnamespace)
        ) as o join pg_roles as r on r.oid = o.owner
        where r.rolname <> 'pgstack_owner'
          and r.oid <> (select nspowner from pg_namespace where nspname = 'pgstack')
    """
    assert column(conn, query) == []
