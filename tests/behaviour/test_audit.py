"""The audit chain at the command line: what was done and refused is found, followed, exported and proved elsewhere."""

from __future__ import annotations

import json
import subprocess
import uuid
from pathlib import Path

import pytest

from modelyard import Client
from tests.framework.cli import PROGRAM, Cli
from tests.framework.stack import Processes
from tests.framework.waiting import wait_until


@pytest.fixture
def admin(processes: Processes, tmp_path: Path) -> Cli:
    """The administrator at the command line."""
    cli = Cli(tmp_path / "admin")
    cli.ok("login", processes.target, "--token-file", str(processes.home.token_file("admin")))
    return cli


@pytest.fixture
def model(processes: Processes) -> str:
    """A model with one version, made by the administrator."""
    catalog = f"audit{uuid.uuid4().hex[:10]}"
    with Client(processes.target, processes.admin_token) as client:
        client.catalogs.create(catalog)
        client.schemas.create(f"{catalog}.ml")
        model = client.models.create(f"{catalog}.ml.iris").name
        version = client.versions.create(model, description="first")
        client.versions.fail(version.name, "nothing was trained")
        client.versions.update(version.name, description="second")
    return model


def test_who_did_what_to_a_version(admin: Cli, model: str) -> None:
    def told() -> set[str]:
        return {item["type"] for item in admin.json("audit", "activity", f"{model}/1")}

    wait_until(lambda: {"catalog.model_version.created", "catalog.model_version.updated"} <= told())
    shown = admin.ok("audit", "activity", f"{model}/1").out
    assert "description: first -> second" in shown
    assert "admin" in shown


def test_refusals_of_every_service_are_in_the_chain(processes: Processes, admin: Cli, model: str) -> None:
    name = f"eve-{uuid.uuid4().hex[:8]}"
    with Client(processes.target, processes.admin_token) as client:
        client.principals.create(name)
        secret = client.tokens.create(principal=name).secret
    with Client(processes.target, secret) as eve:
        for attempt in (
            lambda: eve.models.delete(model),
            lambda: eve.artifacts.get("sha256:" + "0" * 64, model=model),
            lambda: eve.deployments.delete(model),
            eve.audit.verify,
        ):
            with pytest.raises(PermissionError):
                attempt()

    def services() -> set[str]:
        found = admin.json("audit", "list", "--filter", f"actor = '{name}' AND type LIKE '%.access.denied'")
        return {entry["event"]["type"].partition(".")[0] for entry in found}

    wait_until(lambda: services() == {"catalog", "artifact", "inference", "governance"})


def test_an_export_is_proved_without_the_service(admin: Cli, model: str, tmp_path: Path) -> None:
    key, noted, export = tmp_path / "key.pem", tmp_path / "noted.json", tmp_path / "audit.jsonl"
    key.write_text(admin.ok("audit", "key").out)
    noted.write_text(admin.ok("audit", "checkpoint", "--output", "json").out)
    wait_until(lambda: admin.json("audit", "list", "--filter", f"resource LIKE '{model}%'"))
    admin.ok("audit", "export", str(export))
    stranger = Cli(tmp_path / "elsewhere")
    checked = ("audit", "verify", str(export), "--key", str(key), "--checkpoint", str(noted))
    outcome = stranger.ok(*checked, "--output", "json").json
    assert (outcome["valid"], outcome["checkpoint"]["purpose"]) == (True, "EXPORT")
    assert outcome["entries"] == outcome["checkpoint"]["sequence"]
    lines = export.read_text().splitlines()
    export.write_text("\n".join(line.replace(model, "prod.ml.other") for line in lines) + "\n")
    changed = stranger.run(*checked)
    assert changed.code == 1
    assert "was changed" in changed.out
    assert "--key" in stranger.refused("audit", "verify", str(export), code=2)
    assert admin.json("audit", "verify")["valid"]


def test_new_entries_are_followed(processes: Processes, admin: Cli) -> None:
    name = f"ada-{uuid.uuid4().hex[:8]}"
    wanted = ("--limit", "1", "--output", "json", "--filter", f"resource LIKE '{name}%'")
    following = subprocess.Popen(
        [str(PROGRAM), "audit", "list", "--follow", *wanted],
        env=dict(admin.environment),
        stdout=subprocess.PIPE,
        text=True,
    )
    numbers = iter(range(10_000))
    with Client(processes.target, processes.admin_token) as client:

        def ended() -> bool:
            client.principals.create(f"{name}-{next(numbers)}")  # it begins with what comes after its start
            return following.poll() is not None

        try:
            wait_until(ended)
        finally:
            following.kill()
            out, _ = following.communicate(timeout=60)
    assert [json.loads(line)["event"]["type"] for line in out.splitlines()] == [
        "governance.principal.created"
    ]
