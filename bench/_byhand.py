"""What a good engineer writes instead of pgstack.search(): SQL for bench/search.py.

Over the source, the table of chunks and the table of words, which is to say with everything that
pgstack keeps, but without its functions.  The source is joined, as in search(): a row that is gone
or that one may not see is not found.  (The view joins it as well, but outer: where no column of
it is wanted PostgreSQL leaves it out.)  ``{name}`` and the like are filled in with quoted names.

The settings of pgvector are those that search() chooses for itself.  BM25 is written twice: as one
writes it, with unnest() over the words of each text; and as fast as we know how, with a column a
word, the lexemes of the query known to the program that writes the statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from bench._tables import Table

DEPTH = 100
RRF_K = 60
SETTINGS = "set jit = off; set hnsw.iterative_scan = relaxed_order; set hnsw.ef_search = "
EF_SEARCH, EF_SEARCH_HYBRID = "40", "100"

_VECTOR: LiteralString = """
select id, chunk_seq, chunk, 1 - distance as score
from (
  select s.id, s.chunk_seq, s.chunk, s.embedding <=> {vector} as distance
  from {store} as s join {name} as t on t.id = s.id order by distance limit 10
) as n
"""
# Not along the vector index: of the few rows that match, all are compared.
_FEW: LiteralString = """
select id, chunk_seq, chunk, 1 - distance as score
from (
  select s.id, s.chunk_seq, s.chunk, (s.embedding <=> {vector}) + 0 as distance
  from {name} as t join {store} as s on s.id = t.id
  where t.bucket < %(below)s order by distance limit 10
) as n
"""
_MANY: LiteralString = """
select id, chunk_seq, chunk, 1 - distance as score
from (
  select s.id, s.chunk_seq, s.chunk, s.embedding <=> {vector} as distance
  from {store} as s join {name} as t on t.id = s.id
  where t.bucket < %(below)s order by distance limit 10
) as n
"""
_ANY_WORD: LiteralString = """
  select array_agg(word) as words, string_agg(quote_literal(word), ' | ')::tsquery as any_word
  from unnest(tsvector_to_array(to_tsvector('english', %(query)s))) as word
"""
_BM25: LiteralString = """
with q as materialized ({any_word}),
hit as materialized (
  select w.key_1 as id, w.chunk_seq, length(w.words) as size, u.lexeme,
    cardinality(u.positions) as times
  from {words} as w cross join lateral unnest(w.words) as u
  where w.words @@ (select any_word from q) and u.lexeme = any ((select words from q)::text[])
),
rarity as (
  select lexeme, ln(1 + ({rows} - count(*) + 0.5) / (count(*) + 0.5))::float8 as weight
  from hit group by lexeme
),
mean as (select avg(size)::float8 as size from hit),
best as (
  select h.id, h.chunk_seq,
    sum(r.weight * 2.2 * h.times / (h.times + 1.2 * (0.25 + 0.75 * h.size / m.size))) as score
  from hit as h join rarity as r using (lexeme) cross join mean as m
  group by h.id, h.chunk_seq order by score desc limit 10
)
select s.id, s.chunk_seq, s.chunk, b.score
from best as b join {store} as s using (id, chunk_seq) join {name} as t using (id)
order by b.score desc
"""
_TS_RANK: LiteralString = """
select s.id, s.chunk_seq, s.chunk, b.score
from (
  select w.key_1 as id, w.chunk_seq, ts_rank(w.words, q.any_word, 1) as score
  from {words} as w, ({any_word}) as q
  where w.words @@ q.any_word order by score desc limit 10
) as b join {store} as s using (id, chunk_seq) join {name} as t using (id)
order by b.score desc
"""
# ts_rank() of one word that stands n times is (1 + 1/4 + 1/9 ... 1/n^2) / 1.644934.
_FAST_BM25: LiteralString = """
with found as materialized (
  select w.key_1 as id, w.chunk_seq, length(w.words)::float8 as size, {times}
  from {words} as w where w.words @@ %(any_word)s::tsquery
),
counted as (select avg(size) as size, {weights} from found)
select f.id, f.chunk_seq, {score} as score
from found as f cross join counted as n order by score desc limit {limit}
"""
_TIMES: LiteralString = (
    "round(1 / (1.644935 * (1.000001 - ts_rank('{{1,1,1,1}}', w.words, {word}::tsquery)))"
    " - 0.5)::float8 as {times}"
)
_WEIGHT: LiteralString = (
    "2.2 * ln(1 + ({rows} - count(*) filter (where {times} > 0) + 0.5)"
    " / (count(*) filter (where {times} > 0) + 0.5))::float8 as {weight}"
)
_PART: LiteralString = (
    "n.{weight} * f.{times} / (f.{times} + 0.3::float8 + 0.9::float8 * f.size / n.size)"
)
_TEXT: LiteralString = """
select s.id, s.chunk_seq, s.chunk, b.score
from ({bm25}) as b join {store} as s using (id, chunk_seq) join {name} as t using (id)
order by b.score desc
"""
_HYBRID: LiteralString = """
with near as materialized (
  select id, chunk_seq, chunk, row_number() over (order by distance) as nr
  from (
    select s.id, s.chunk_seq, s.chunk, s.embedding <=> {vector} as distance
    from {store} as s join {name} as t on t.id = s.id order by distance limit {depth}
  ) as n
),
spoken as materialized (
  select s.id, s.chunk_seq, s.chunk, row_number() over (order by b.score desc) as nr
  from ({bm25}) as b join {store} as s using (id, chunk_seq) join {name} as t using (id)
)
select id, chunk_seq, coalesce(n.chunk, s.chunk) as chunk,
  coalesce(1.0 / ({k} + n.nr), 0) + coalesce(1.0 / ({k} + s.nr), 0) as score
from near as n full join spoken as s using (id, chunk_seq)
order by score desc limit 10
"""
_GIVEN = sql.SQL("%(vector)s")
_EMBEDDED = sql.SQL("(select pgstack.embed(%(query)s, 'all-minilm'))")


@dataclass(frozen=True)
class ByHand:
    """The statements for one table.  ``embed``: the vector comes from pgstack.embed()."""

    table: Table
    embed: bool = False

    def vector(self) -> sql.Composed:
        """The nearest."""
        return self._fill(_VECTOR)

    def few(self) -> sql.Composed:
        """The nearest of few rows: those whose bucket is less than %(below)s."""
        return self._fill(_FEW)

    def many(self) -> sql.Composed:
        """The nearest of many rows."""
        return self._fill(_MANY)

    def bm25(self) -> sql.Composed:
        """BM25 as one writes it."""
        return self._fill(_BM25, any_word=sql.SQL(_ANY_WORD), rows=sql.Literal(self.table.rows))

    def ts_rank(self) -> sql.Composed:
        """Another ranking, the one PostgreSQL has."""
        return self._fill(_TS_RANK, any_word=sql.SQL(_ANY_WORD))

    def text(self, count: int) -> sql.Composed:
        """BM25 as fast as we know how, for a query of ``count`` words."""
        return self._fill(_TEXT, bm25=self._fast_bm25(count, 10))

    def hybrid(self, count: int) -> sql.Composed:
        """The nearest and the best by BM25, fused by their ranks."""
        return self._fill(
            _HYBRID,
            bm25=self._fast_bm25(count, DEPTH),
            depth=sql.Literal(DEPTH),
            k=sql.Literal(RRF_K),
        )

    def _fast_bm25(self, count: int, limit: int) -> sql.Composed:
        rows = sql.Literal(self.table.rows)
        columns = [
            {
                "word": sql.Placeholder(f"word_{nr}"),
                "times": sql.Identifier(f"times_{nr}"),
                "weight": sql.Identifier(f"weight_{nr}"),
                "rows": rows,
            }
            for nr in range(count)
        ]

        def each(part: LiteralString, between: LiteralString) -> sql.Composed:
            return sql.SQL(between).join(sql.SQL(part).format(**names) for names in columns)

        return self._fill(
            _FAST_BM25,
            times=each(_TIMES, ", "),
            weights=each(_WEIGHT, ", "),
            score=each(_PART, " + "),
            limit=sql.Literal(limit),
        )

    def _fill(self, statement: LiteralString, **parts: sql.Composable) -> sql.Composed:
        names: dict[str, sql.Composable] = {
            "name": sql.Identifier(self.table.name),
            "store": sql.Identifier(self.table.store),
            "words": sql.Identifier(*self.table.words_table.split(".")),
            "vector": _EMBEDDED if self.embed else _GIVEN,
        }
        used = {**names, **parts}
        return sql.SQL(statement).format(**used)


def word_parameters(words: Sequence[str]) -> dict[str, str]:
    """Return the lexemes of a query as parameters of text() and hybrid()."""
    quoted = ["'" + word.replace("'", "''") + "'" for word in words]
    return {"any_word": " | ".join(quoted)} | {f"word_{nr}": q for nr, q in enumerate(quoted)}
