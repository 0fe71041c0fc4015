"""Vectors on their way to PostgreSQL, in pgvector's binary form.

Text costs twelve bytes a number, and time to write and read it on either side; this costs four.

Data in and out
    numbers    sequence of float, 1 to 16,000 of them, all finite as 4-byte floats; unit-free
    Vector     bytes: int16 length, int16 zero, 4-byte floats; big-endian

After :func:`register`, a :class:`Vector` is a parameter of type ``vector``, and a list of them,
with None for SQL's null, one of type ``vector[]``::

    await register(conn)
    await conn.execute("select f(%s)", [[Vector.pack([0.1, 0.2]), None]])

An empty list, and one of nothing but None, are sent untyped: PostgreSQL takes the type of the
place where they stand, as it does for a string.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

from psycopg.adapt import Buffer, Dumper, PyFormat
from psycopg.pq import Format
from psycopg.types import TypeInfo
from psycopg.types.array import BaseListDumper, ListBinaryDumper, ListDumper

from pgstack.errors import MissingExtension

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from psycopg.abc import AdaptContext

MAX_DIMENSIONS = 16_000  # pgvector's own limit
_HEAD = struct.Struct(">HH")

# The extension may live in any schema, on the search path or off it.
_FIND_TYPE = """
select t.oid, t.typarray
from pg_catalog.pg_extension as e
join pg_catalog.pg_type as t on t.typnamespace = e.extnamespace and t.typname = 'vector'
where e.extname = 'vector'
"""


@lru_cache(maxsize=8)
def _format(length: int) -> struct.Struct:
    return struct.Struct(f">HH{length}f")


class Vector(bytes):
    """One vector as pgvector sends and receives it."""

    __slots__ = ()

    @classmethod
    def pack(cls, numbers: Sequence[float]) -> Self:
        """Return ``numbers`` packed; raise ValueError for what pgvector would refuse."""
        if not 0 < len(numbers) <= MAX_DIMENSIONS:
            raise ValueError(f"a vector has 1 to {MAX_DIMENSIONS} numbers, not {len(numbers)}")
        # A sum is finite only if every term is, and is faster than a look at each.
        if not math.isfinite(sum(numbers)):
            raise ValueError("a number of the vector is not finite")
        try:
            return cls(_format(len(numbers)).pack(len(numbers), 0, *numbers))
        except OverflowError:
            raise ValueError("a number of the vector is not finite") from None

    @property
    def dimensions(self) -> int:
        """Return how many numbers it has."""
        return int(_HEAD.unpack_from(self)[0])


class _VectorDumper(Dumper):
    """Sends the bytes as they are."""

    format = Format.BINARY

    def dump(self, obj: Any) -> Buffer:
        return bytes(obj)


class _ListDumper(ListDumper):
    """Sends lists of vectors in binary: left alone, psycopg sends every list as text."""

    def upgrade(self, obj: list[Any], format: PyFormat) -> BaseListDumper:
        if isinstance(next((item for item in obj if item is not None), None), Vector):
            return ListBinaryDumper(self.cls, self._tx).upgrade(obj, PyFormat.BINARY)
        return super().upgrade(obj, format)


async def register(conn: AsyncConnection[Any]) -> None:
    """Let ``conn`` send vectors; a pool's ``configure`` may be this.

    Raises MissingExtension when the database has no pgvector.
    """
    async with conn.transaction():
        row = await (await conn.execute(_FIND_TYPE)).fetchone()
    if row is None:
        raise MissingExtension(
            "the extension vector is not installed in this database", hint="pgstack install -d URL"
        )
    oid, array_oid = row
    adapt(conn, oid=oid, array_oid=array_oid)


def adapt(context: AdaptContext, *, oid: int, array_oid: int) -> None:
    """Let ``context`` send vectors as the type with these object identifiers."""
    adapters = context.adapters
    adapters.types.add(TypeInfo("vector", oid, array_oid))
    adapters.register_dumper(Vector, type("VectorDumper", (_VectorDumper,), {"oid": oid}))
    adapters.register_dumper(list, _ListDumper)
