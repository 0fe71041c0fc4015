"""What the process that reads files may not do, put on by that process itself.

Three layers; each is left out where the system does not have it, and :func:`confine` says
which are on:

``limits``    memory, processor time, size and number of files, no core dump (any Unix)
``landlock``  no file but those in its own folder, and OCR's data to read; no program; no TCP
              (Linux 5.13 or later; TCP from 6.7 on)
``seccomp``   no socket, no program, no new process, no look into other processes
              (Linux on x86-64 and aarch64)
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterable

_FILE_BYTES = 256_000_000
_OPEN_FILES = 64
_F_SETSIG = 10  # Linux

_PR_SET_NO_NEW_PRIVS = 38

_confined = False


def die_with_parent(lifeline: int) -> None:
    """Die at once when the other end of the pipe ``lifeline`` closes."""
    if sys.platform != "linux":  # pragma: no cover - the end of stdin must do
        return
    # Not PR_SET_PDEATHSIG: that watches the thread that started us, not its process.
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)


def confine(folder: str, readable: Iterable[str], memory_bytes: int) -> tuple[str, ...]:
    """Put on every layer there is, for good; return their names.

    ``folder``        the one place to write to
    ``readable``      folders to read from besides
    ``memory_bytes``  of address space
    """
    global _confined  # noqa: PLW0603 - of this process, as the limits are
    _confined = True
    _limit(resource.RLIMIT_AS, memory_bytes)
    _limit(resource.RLIMIT_FSIZE, _FILE_BYTES)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    layers = ["limits"]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if _landlock(libc, folder, readable):
            layers.append("landlock")
        if _seccomp(libc):
            layers.append("seccomp")
    return tuple(layers)


def limit_processor(seconds: int) -> None:
    """Allow ``seconds`` more of processor time from now on, if this process is confined."""
    if not _confined:
        return
    # The soft limit moves on with each file; the hard one stays open for that.
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = int(processor_seconds()) + seconds
    resource.setrlimit(
        resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard)
    )


def processor_seconds() -> float:
    """Return the processor time this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


# --- Landlock: include/uapi/linux/landlock.h ----------------------------------------------

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_TRUNCATE = 1 << 14
_ALL_TCP = 3
_ALL_SCOPES = 3  # abstract sockets of others, signals to others

# Rights over files, by version of the interface: all of them are taken away.
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}


def _landlock(libc: ctypes.CDLL, folder: str, readable: Iterable[str]) -> bool:
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    if version < 1:  # not in this kernel, or switched off
        return False
    handled = _FILE_RIGHTS[max(number for number in _FILE_RIGHTS if number <= version)]
    attributes = struct.pack("=Q", handled)
    if version >= 4:
        attributes += struct.pack("=Q", _ALL_TCP)
    if version >= 6:
        attributes += struct.pack("=Q", _ALL_SCOPES)
    rules = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if rules < 0:
        return False
    try:
        read = _READ_FILE | _READ_DIR
        write = _WRITE_FILE | _MAKE_REG | _MAKE_DIR | _REMOVE_FILE | _REMOVE_DIR | _TRUNCATE
        _allow(libc, rules, folder, (read | write) & handled)
        for place in readable:
            _allow(libc, rules, place, read)
        return bool(libc.syscall(_RESTRICT_SELF, rules, 0) == 0)
    finally:
        os.close(rules)


def _allow(libc: ctypes.CDLL, rules: int, place: str, rights: int) -> None:
    handle = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", rights, handle)
        if libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, rule, 0) != 0:
            raise OSError(ctypes.get_errno(), "landlock_add_rule")
    finally:
        os.close(handle)


# --- seccomp: what Landlock does not know of ----------------------------------------------

_SET_MODE_FILTER, _TSYNC = 1, 1
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_CLONE_THREAD = 0x10000
_NR, _ARCH, _ARG0 = 0, 4, 16  # places in struct seccomp_data

# By machine: AUDIT_ARCH, seccomp, clone, clone3, then what is refused.
# socket, connect, bind; execve, execveat, fork, vfork; ptrace, process_vm_readv/writev, kill,
# tkill, rt_sigqueueinfo, pidfd_open, pidfd_getfd; unshare, setns, mount, open_by_handle_at;
# io_uring_setup, bpf, perf_event_open, userfaultfd, add_key, request_key, keyctl
_MACHINES = {
    "x86_64": (
        (0xC000003E, 317, 56, 435),
        (
            *(41, 42, 49, 59, 322, 57, 58, 101, 310, 311, 62, 200, 129, 434, 438),
            *(272, 308, 165, 304, 425, 321, 298, 323, 248, 249, 250),
        ),
    ),
    "aarch64": (
        (0xC00000B7, 277, 220, 435),
        (
            *(198, 203, 200, 221, 281, 117, 270, 271, 129, 130, 138, 434, 438),
            *(97, 268, 40, 265, 425, 280, 241, 282, 217, 218, 219),
        ),
    ),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _seccomp(libc: ctypes.CDLL) -> bool:
    machine = _MACHINES.get(os.uname().machine)
    if machine is None:  # pragma: no cover - another processor
        return False
    (arch, seccomp, clone, clone3), refused = machine
    refusal = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    lines = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, arch),
        refusal,
        (_LOAD, 0, 0, _NR),
        (_AT_LEAST, 0, 1, 0x40000000),  # the x32 calls, numbered anew
        refusal,
        # Its flags cannot be looked at; told that it is not there, libc takes clone.
        (_EQUAL, 0, 1, clone3),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    for number in refused:
        lines += [(_EQUAL, 0, 1, number), refusal]
    lines += [
        (_EQUAL, 0, 3, clone),
        (_LOAD, 0, 0, _ARG0),
        (_ANY_BIT, 1, 0, _CLONE_THREAD),
        refusal,
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = b"".join(struct.pack("=HBBI", *line) for line in lines)
    program = _Program(len(lines), code)
    return bool(libc.syscall(seccomp, _SET_MODE_FILTER, _TSYNC, ctypes.byref(program)) == 0)
