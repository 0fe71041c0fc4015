"""PostgreSQL's settings for a small machine, as the file ``pgstack.conf``.

The file is written anew at each start and included at the end of postgresql.conf.  What a
person sets with ALTER SYSTEM, or below the include, is stronger and is never touched.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

FILE = "pgstack.conf"

INCLUDE = f"""
# pgstack's settings. Yours win when they stand below this line, or come from ALTER SYSTEM.
include_if_exists = '{FILE}'
"""

HEADER = """\
# Written by pgstack at each start: edits here are lost.
# Your own settings: ALTER SYSTEM, or lines below the include in postgresql.conf.
"""

# The socket's directory is open to its owner alone; TCP, when asked for, wants a password.
HBA = """\
# TYPE  DATABASE     USER  ADDRESS        METHOD
local   all          all                  trust
local   replication  all                  trust
host    all          all   127.0.0.1/32   scram-sha-256
host    all          all   ::1/128        scram-sha-256
"""

_MB = 2**20
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def text(*, tcp_port: int | None, settings: Mapping[str, str]) -> str:
    """Return the content of pgstack.conf; ``settings`` override ours."""
    values = _defaults(_memory()) | _listening(tcp_port) | dict(settings)
    return HEADER + "".join(f"{name} = {_quoted(value)}\n" for name, value in values.items())


def _listening(tcp_port: int | None) -> dict[str, str]:
    if tcp_port is None:
        return {"listen_addresses": ""}
    return {"listen_addresses": "127.0.0.1", "port": str(tcp_port)}


def _defaults(memory: int) -> dict[str, str]:
    index_memory = min(max(memory // 16, 64 * _MB), 512 * _MB)
    return {
        "cluster_name": "pgstack",
        "unix_socket_permissions": "0700",
        "password_encryption": "scram-sha-256",
        "max_connections": "100",
        "shared_preload_libraries": "pg_textsearch,pg_stat_statements",
        "shared_buffers": _megabytes(min(max(memory // 8, 64 * _MB), 1024 * _MB)),
        "effective_cache_size": _megabytes(max(memory // 2, 128 * _MB)),
        "maintenance_work_mem": _megabytes(index_memory),
        "work_mem": "8MB",
        "dynamic_shared_memory_type": _shared_memory_type(2 * index_memory),
        "random_page_cost": "1.1",  # solid-state disks
        "wal_compression": "lz4",
        "track_io_timing": "on",
        "log_line_prefix": "%m [%p] %q%u@%d %a ",
        "log_lock_waits": "on",
    }


def _shared_memory_type(needed: int) -> str:
    """Use files instead of /dev/shm where a container gives it too little.

    A parallel HNSW build keeps its graph, up to maintenance_work_mem, in shared memory;
    Docker's default of 64 MB makes it fail with "No space left on device".
    """
    try:
        roomy = shutil.disk_usage("/dev/shm").total >= needed  # noqa: S108  (only measured)
    except OSError:
        roomy = False
    return "posix" if roomy else "mmap"


def _memory() -> int:
    """Return the bytes of memory this machine, or this container, may use."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in _CGROUP_LIMITS:
        try:
            sizes.append(int(file.read_text()))
        except (OSError, ValueError):  # no such cgroup version, or "max"
            continue
    return min(sizes)


def _megabytes(size: int) -> str:
    return f"{size // _MB}MB"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n")
    return f"'{escaped}'"
