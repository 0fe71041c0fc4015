"""An object store that speaks S3, on this machine: moto's server, in a process of its own.

``with running() as url`` gives its address; :func:`environment` what a client needs to find it.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_PROGRAM = """
import sys
import urllib.request
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()  # until the caller ends, however that happens
server.stop()
"""


@contextmanager
def running() -> Iterator[str]:
    """Run an object store for the length of the block; skips the test where moto is missing."""
    if importlib.util.find_spec("moto") is None:
        pytest.skip("moto is not installed: make setup-dev")
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port, "the object store did not start"
        yield f"http://127.0.0.1:{port}"


def environment(url: str) -> dict[str, str]:
    """Return the variables with which clients find the store and its credentials."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
        "AWS_SECRET_ACCESS_KEY": "not-a-secret",
        "AWS_REGION": "us-east-1",
    }


def bucket(name: str, url: str) -> Any:
    """Make a bucket, and return obstore's client of it, for putting objects there."""
    from obstore.store import S3Store

    urllib.request.urlopen(
        urllib.request.Request(f"{url}/{name}", method="PUT"), timeout=10
    ).close()
    return S3Store(
        name,
        endpoint=url,
        access_key_id="AKIATESTTESTTESTTEST",
        secret_access_key="not-a-secret",
        region="us-east-1",
        client_options={"allow_http": True},
    )


def put(url: str, path: str, data: bytes) -> None:
    """Put an object, or make a bucket, under exactly that name."""
    request = urllib.request.Request(f"{url}/{path}", data, method="PUT")
    urllib.request.urlopen(request, timeout=10).close()
