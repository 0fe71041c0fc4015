"""up, down and status, with a stand-in for the model server and for the worker.

The stand-ins run under the real supervisor, beside a real PostgreSQL; what they do on
request (crash, ignore SIGTERM) is what the real ones do at the worst moment.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgstack.embedded import logs, postgres, stack, supervisor
from pgstack.embedded.home import Home
from pgstack.embedded.stack import StackStatus
from pgstack.embedded.supervisor import MODEL_SERVER, WORKER
from pgstack.errors import EmbeddedError

type Query = Callable[..., Any]

# The supervisor as it is, but for what it starts.
STAND_IN = """
import sys
from pathlib import Path
from pgstack.embedded import supervisor

folder = Path(__file__).parent
supervisor.GRACE_SECONDS = 1.0
supervisor.model_server_command = lambda home: [
    sys.executable, str(folder / "models.py"), str(supervisor.url_file(home)), str(folder)
]
supervisor.worker_command = lambda home: [sys.executable, str(folder / "worker.py"), str(folder)]
sys.exit(supervisor.main())
"""

# Ready under a URL that nobody had before.
MODELS = """
import os, signal, sys, time
from pathlib import Path
file, folder = map(Path, sys.argv[1:])
if (folder / "models-crash").exists():
    sys.exit("the models are broken")
if (folder / "stubborn").exists():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
file.write_text(f"http://127.0.0.1/{os.getpid()}")
while True:
    time.sleep(60)
"""

WORKER_CODE = """
import json, os, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
if (folder / "worker-crash").exists():
    sys.exit("the worker is broken")
Path(folder, "worker.json").write_text(json.dumps(dict(os.environ)))
while True:
    time.sleep(60)
"""


ANSWER_YES = """
create or replace function _pgstack.worker_present() returns boolean language sql as 'select true'
"""
ANSWER_NO = """
create or replace function _pgstack.worker_present() returns boolean language sql as 'select false'
"""


@pytest.fixture
def stand_ins(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let ``up`` start the stand-ins; returns their folder, whose files steer them."""
    folder = place / "programs"
    folder.mkdir()
    folder.chmod(0o777)
    for name, code in {"main": STAND_IN, "models": MODELS, "worker": WORKER_CODE}.items():
        (folder / f"{name}.py").write_text(code)
    monkeypatch.setattr(stack, "SUPERVISOR_COMMAND", [sys.executable, str(folder / "main.py")])
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    return folder


def up(home: Home, *, connected: bool = True, **options: Any) -> StackStatus:
    """Start the stack in a database that says whether a worker is connected."""

    def prepare(dsn: str) -> None:
        with psycopg.connect(dsn) as conn:
            conn.execute("select pg_advisory_xact_lock(1)")  # as an install would
            conn.execute("create schema if not exists _pgstack")
            conn.execute(ANSWER_YES if connected else ANSWER_NO)

    said: list[str] = []
    postgres.start(home, settings={"fsync": "off", "shared_buffers": "16MB"})
    return stack.up(home, progress=said.append, prepare=prepare, **options)


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until it holds; pytest's own time limit ends what never does."""
    pause = threading.Event()
    while not condition():
        pause.wait(0.05)


def exists(pid: int | None) -> bool:
    """Whether a process lives; a zombie does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def worker_environment(folder: Path) -> dict[str, str]:
    return dict(json.loads((folder / "worker.json").read_text()))


@pytest.mark.usefixtures("stand_ins")
def test_up_starts_all_and_down_stops_all(home: Home) -> None:
    found = up(home)
    assert found.postgres.running
    assert found.version == "17.10"
    assert found.model_server.running
    assert found.worker.running
    assert found.model_server_url == f"http://127.0.0.1/{found.model_server.pid}"
    assert found.home == str(home.root)
    assert found.disk_used > 0
    assert stack.down(home) == (WORKER, MODEL_SERVER, "postgres")
    assert not any(exists(part.pid) for part in (found.postgres, found.model_server, found.worker))
    assert not supervisor.is_alive(home)
    assert not supervisor.state_file(home).exists()
    assert stack.down(home) == ()


@pytest.mark.usefixtures("stand_ins")
def test_up_again_changes_nothing(made: Home) -> None:
    first, second = up(made), up(made)
    for name in ("postgres", "model_server", "worker"):
        assert getattr(first, name).pid == getattr(second, name).pid
    assert second.worker.restarts == 0


@pytest.mark.usefixtures("stand_ins")
def test_a_worker_without_a_model_server_is_left_out(made: Home) -> None:
    found = up(made, models=False)
    assert (found.postgres.running, found.worker.running) == (True, False)


@pytest.mark.usefixtures("stand_ins")
def test_two_at_once_start_one_of_each(home: Home) -> None:
    found: list[StackStatus] = []
    threads = [threading.Thread(target=lambda: found.append(up(home))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0].worker.pid == found[1].worker.pid
    assert found[0].model_server.pid == found[1].model_server.pid


def test_status_is_plain_data(running: Home) -> None:
    plain = json.loads(json.dumps(stack.status(running).to_dict()))
    assert plain["postgres"]["running"] is True
    assert plain["worker"]["running"] is False
    assert plain["dsn"] == postgres.dsn(running)


def test_status_of_nothing(home: Home) -> None:
    found = stack.status(home)
    assert not found.postgres.running
    assert found.model_server_url is None
    assert not home.root.exists()


@pytest.mark.usefixtures("stand_ins")
def test_parts_can_be_left_out_and_added(made: Home) -> None:
    assert not up(made, worker=False, models=False).worker.running
    assert not supervisor.is_alive(made)
    assert not up(made, worker=False).worker.running
    assert up(made).worker.running
    assert up(made, worker=False, models=False).worker.running


def test_the_worker_gets_the_model_server(made: Home, stand_ins: Path) -> None:
    found = up(made)
    wait_for((stand_ins / "worker.json").exists)
    assert worker_environment(stand_ins)["OLLAMA_HOST"] == found.model_server_url


def test_a_foreign_model_server_replaces_ours(
    made: Home, stand_ins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert up(made).model_server.running
    monkeypatch.setenv("OLLAMA_HOST", "http://models.example:11434")
    found = up(made)
    assert not found.model_server.running
    assert found.model_server_url == "http://models.example:11434"
    wait_for(lambda: worker_environment(stand_ins)["OLLAMA_HOST"] == found.model_server_url)


def test_children_do_not_inherit_libpq_settings(
    made: Home, stand_ins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGAPPNAME", "somebody else")
    up(made)
    wait_for((stand_ins / "worker.json").exists)
    environment = worker_environment(stand_ins)
    assert "PGAPPNAME" not in environment
    assert environment["PGSTACK_HOME"] == str(made.root)


@pytest.mark.usefixtures("stand_ins")
def test_a_crashed_worker_comes_back(made: Home) -> None:
    first = up(made).worker.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: stack.status(made).worker.pid not in (first, None))
    assert stack.status(made).worker.restarts == 1


@pytest.mark.usefixtures("stand_ins")
def test_a_worker_follows_the_model_server_to_its_new_address(made: Home) -> None:
    first = up(made)
    assert first.model_server.pid is not None
    os.kill(first.model_server.pid, signal.SIGKILL)
    wait_for(lambda: stack.model_server_url(made) not in (first.model_server_url, None))
    wait_for(lambda: stack.status(made).worker.pid not in (first.worker.pid, None))
    assert stack.status(made).worker.restarts == 0


@pytest.mark.parametrize("name", ["models", "worker"])
def test_what_does_not_stay_up_is_reported_with_its_log(
    made: Home, stand_ins: Path, name: str
) -> None:
    (stand_ins / f"{name}-crash").touch()
    with pytest.raises(EmbeddedError, match="broken") as caught:
        up(made, connected=False)
    assert "tail" in str(caught.value.hint)
    (stand_ins / f"{name}-crash").unlink()
    assert up(made).worker.running


def test_a_program_that_ignores_sigterm_is_killed(made: Home, stand_ins: Path) -> None:
    (stand_ins / "stubborn").touch()
    pid = up(made, worker=False).model_server.pid
    stack.down(made)
    assert not exists(pid)


@pytest.mark.usefixtures("stand_ins")
def test_a_killed_supervisor_takes_its_children_along(made: Home) -> None:
    first = up(made)
    found = supervisor.read_state(made)
    assert found is not None
    os.kill(found.pid, signal.SIGKILL)
    wait_for(lambda: not exists(first.worker.pid) and not exists(first.model_server.pid))
    assert not stack.status(made).worker.running
    assert up(made).worker.running


@pytest.mark.usefixtures("stand_ins")
def test_a_supervisor_ends_when_its_home_moves(made: Home, place: Path) -> None:
    first = up(made)
    moved = Home(made.root.rename(place / "elsewhere"))
    wait_for(lambda: not supervisor.is_alive(moved))
    assert not exists(first.worker.pid)
    assert up(moved).worker.running
    assert stack.down(moved) == (WORKER, MODEL_SERVER, "postgres")


@pytest.mark.usefixtures("stand_ins")
def test_up_mends_a_killed_server(made: Home) -> None:
    pid = up(made).postgres.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not postgres.is_running(made))
    found = up(made)
    assert found.postgres.running
    assert found.worker.running


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize(("python", "other"), [("/bin/true", True), ("/bin/false", False)])
def test_root_hands_the_supervisor_to_a_user_who_can_run_it(
    running: Home, monkeypatch: pytest.MonkeyPatch, python: str, other: bool
) -> None:
    monkeypatch.setattr(sys, "executable", python)
    who = stack._supervisor_account(running)
    assert who.uid == (running.data.stat().st_uid if other else 0)


@pytest.mark.usefixtures("stand_ins")
def test_log_files(made: Home) -> None:
    assert stack.log_files(made) == {}
    up(made)
    files = stack.log_files(made)
    assert set(files) == {"postgres", MODEL_SERVER, WORKER, "supervisor"}
    assert "ready to accept connections" in files["postgres"].read_text()


def test_a_large_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LIMIT", 10)
    log = tmp_path / "x.log"
    with logs.open_to_append(log) as file:
        file.write(b"old and long\n")
        file.flush()
        logs.rotate(log)
        file.write(b"new\n")
        file.flush()
        logs.rotate(log)
    assert log.read_text() == "new\n"
    assert (tmp_path / "x.log.1").read_text() == "old and long\n"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_link_in_a_logs_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "x.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        logs.open_to_append(tmp_path / "x.log")
    assert not (tmp_path / "elsewhere").exists()
