"""compose.yaml and the Dockerfile, read but not run: no Docker engine is needed.

The schema is that of the Compose specification (Apache-2.0), as check-jsonschema ships it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "compose.yaml"
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def conforms(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema"]
    command += ["--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text())  # type: ignore[no-any-return]


def test_it_follows_the_compose_specification() -> None:
    result = conforms(COMPOSE)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_validation_would_notice_a_mistake(tmp_path: Path) -> None:
    broken = tmp_path / "compose.yaml"
    broken.write_text(COMPOSE.read_text().replace("restart: unless-stopped", "restarts: yes", 1))
    result = conforms(broken)
    assert result.returncode == 1
    assert "restarts" in result.stdout


def test_every_image_is_pinned(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        tag = service["image"].partition(":")[2]
        built_here = "build" in service
        assert built_here or re.search(r"\d+\.\d+", tag), f"{name}: {service['image']}"
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)
    assert bases
    assert all(re.fullmatch(r"python:3\.\d+-slim-\w+", base) for base in bases)


def test_no_password_has_a_default(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for key, value in service.get("environment", {}).items():
            if "PASSWORD" in key:
                assert value == "${POSTGRES_PASSWORD:?set it in .env}", name
    assert "PASSWORD" not in DOCKERFILE


def test_only_this_machine_can_reach_a_port(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert "network_mode" not in service
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_data_is_kept_in_named_volumes(compose: dict[str, Any]) -> None:
    declared = set(compose["volumes"])
    used = {
        volume.split(":")[0]
        for service in compose["services"].values()
        for volume in service.get("volumes", [])
    }
    assert used == declared


def test_everything_starts_after_what_it_needs(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            other = services[needed]
            if how["condition"] == "service_healthy":
                assert "healthcheck" in other, f"{name} waits for {needed}, which has no check"
            else:
                assert how["condition"] == "service_completed_successfully"
                assert other["restart"] == "no", f"{needed} must end for {name} to start"
    running = [s for s in services.values() if s["restart"] != "no"]
    assert all("healthcheck" in service for service in running)


def test_the_models_fetched_are_the_defaults_of_sql(compose: dict[str, Any]) -> None:
    settings = (ROOT / "sql" / "010_setting.sql").read_text()
    defaults = re.findall(r"'(?:embedding|generation)_model', '([^']+)'", settings)
    fetched = re.findall(r"ollama pull (\S+?)(?:;|$)", compose["services"]["models"]["command"][0])
    assert len(defaults) == 2
    assert sorted(fetched) == sorted(defaults)


def test_the_image_runs_as_nobody_in_particular(compose: dict[str, Any]) -> None:
    final = DOCKERFILE.rsplit("FROM ", 1)[1]
    user = re.search(r"^USER (\d+)$", final, re.M)
    assert user is not None
    assert int(user.group(1)) >= 10000
    worker = compose["services"]["worker"]
    assert worker["read_only"] is True
    assert worker["cap_drop"] == ["ALL"]


def test_the_image_holds_what_the_wheel_needs_and_no_more() -> None:
    copied = set(re.findall(r"\S+", " ".join(re.findall(r"^COPY (?!--)(.*)$", DOCKERFILE, re.M))))
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    assert allowed <= copied
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {path.split("/")[0] for path in [*wheel["packages"], *wheel["force-include"]]}
    assert needed <= allowed
    assert "--constraint constraints.txt" in DOCKERFILE
    assert "embedded" not in re.sub(r"(?m)^#.*$", "", DOCKERFILE)


def test_the_devcontainer_uses_the_commands_of_the_makefile() -> None:
    devcontainer = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    target = devcontainer["postCreateCommand"].removeprefix("make ")
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)
