"""The command line, as people and scripts use it, against everything `modelyard up` starts."""

from __future__ import annotations

import stat
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import skops.io
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from modelyard import Client
from tests.framework.cli import PROGRAM, Cli
from tests.framework.keys import Key
from tests.framework.stack import Processes
from tests.framework.waiting import wait_until


def log_in(processes: Processes, home: Path, token_file: Path, *, apart: bool = False) -> Cli:
    """Log somebody in by the file that holds the token."""
    cli = Cli(home, apart)
    cli.ok("login", processes.target, "--token-file", str(token_file))
    return cli


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for this module."""
    return tmp_path_factory.mktemp("a home with spaces")


@pytest.fixture(scope="module")
def admin(processes: Processes, folder: Path) -> Cli:
    """The administrator at the command line."""
    return log_in(processes, folder / "admin", processes.home.token_file("admin"))


@pytest.fixture(scope="module")
def user(processes: Processes, admin: Cli, folder: Path) -> tuple[str, Cli]:
    """A new user, logged in."""
    name = f"ada-{uuid.uuid4().hex[:8]}"
    admin.ok("principals", "create", name, "--display-name", "Ada")
    made = admin.json("tokens", "create", "--principal", name, "--days", "1")
    token_file = folder / "ada.token"
    token_file.touch(mode=0o600)
    token_file.write_text(made["secret"] + "\n")
    return name, log_in(processes, folder / name, token_file)


@pytest.fixture
def client(processes: Processes) -> Iterator[Client]:
    """The administrator in Python, for what a test only needs to be there."""
    with Client(processes.target, processes.admin_token) as client:
        yield client


@pytest.fixture
def schema(client: Client) -> str:
    """A new schema."""
    catalog = f"cli{uuid.uuid4().hex[:10]}"
    client.catalogs.create(catalog)
    client.schemas.create(f"{catalog}.ml")
    return f"{catalog}.ml"


@pytest.fixture(scope="module")
def saved(folder: Path) -> Path:
    """A folder with a saved model, and rows for it beside."""
    rows, labels = load_iris(return_X_y=True)
    (folder / "saved").mkdir()
    skops.io.dump(LogisticRegression(max_iter=500).fit(rows, labels), folder / "saved" / "model.skops")
    (folder / "rows.csv").write_text("5.1,3.5,1.4,0.2\n")
    return folder / "saved"


def lines(text: str) -> list[list[str]]:
    """Return the words of every line of a table."""
    return [line.split() for line in text.splitlines()]


def test_a_login_is_kept_for_its_owner_alone(processes: Processes, tmp_path: Path) -> None:
    admin = log_in(processes, tmp_path / "home", processes.home.token_file("admin"), apart=True)
    token = processes.admin_token
    shown = lines(admin.ok("whoami").out)
    assert ["name", "admin"] in shown
    caller = admin.json("whoami")
    assert (caller["name"], caller["kind"]) == ("admin", "USER")
    saved = admin.home / "contexts.json"
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert stat.S_IMODE(admin.home.stat().st_mode) == 0o700
    assert token not in admin.ok("context", "show").out
    assert admin.ok("token").out.count(".") == 2
    saved.chmod(0o644)
    error = admin.refused("whoami")
    assert error == f"error: {saved} holds a secret and others may read it; run: chmod 600 {saved}\n"
    saved.chmod(0o600)
    admin.ok("logout")
    assert "modelyard login" in admin.refused("whoami")


def test_a_token_that_others_may_read_or_nobody_was_given_is_not_used(
    processes: Processes, tmp_path: Path
) -> None:
    cli = Cli(tmp_path / "home")
    token_file = tmp_path / "token"
    token_file.write_text(processes.admin_token)
    token_file.chmod(0o640)
    assert "chmod 600" in cli.refused("login", processes.target, "--token-file", str(token_file))
    token_file.chmod(0o600)
    token_file.write_text("mya_" + "0" * 32 + "_" + "x" * 43)
    error = cli.refused("login", processes.target, "--token-file", str(token_file))
    assert "nobody was given this API token" in error
    assert not (cli.home / "contexts.json").exists()
    ended = cli.run("login", processes.target, "--token-file", "-", stdin=processes.admin_token + "\n")
    assert ended.code == 0
    assert processes.admin_token not in ended.out + ended.err


def test_from_a_saved_model_to_a_champion(admin: Cli, schema: str, saved: Path, tmp_path: Path) -> None:
    model = f"{schema}.iris"
    (saved / "note.txt").write_text("accuracy 0.9")
    example = str(saved.with_name("rows.csv"))
    admin.ok("log", str(saved), model, "--example", example, "--metric", "accuracy=0.9")
    header, row = lines(admin.ok("models", "list", schema).out)
    assert (header[:3], row[:3]) == (["name", "owner", "latest"], [model, "admin", "1"])
    [version] = admin.json("versions", "list", model)
    assert (version["number"], version["state"], version["metrics"]) == (1, "READY", {"accuracy": 0.9})
    assert ["champion", "1"] in lines(admin.ok("aliases", "set", model, "champion=1").out)
    shown = admin.json("versions", "show", f"{model}@champion")
    assert (shown["name"], shown["runtime"], shown["aliases"]) == (f"{model}/1", "sklearn", ["champion"])
    assert "predict(input: FP64[-1, 4])" in admin.ok("versions", "show", f"{model}@champion").out
    assert admin.json("tags", "set", f"{model}/1", "team=blue") == {"team": "blue"}
    assert admin.json("metrics", "set", f"{model}/1", "matrix=[[1,0],[0,1]]")["matrix"] == [[1, 0], [0, 1]]
    files = {one["path"] for one in admin.json("artifacts", "files", f"{model}/1")}
    assert files == {"model.skops", "note.txt"}
    admin.ok("artifacts", "download", f"{model}@champion", str(tmp_path / "down"))
    assert (tmp_path / "down" / "note.txt").read_text() == "accuracy 0.9"
    error = admin.refused("aliases", "set", model, "champion=0", "--expect", "champion=2")
    assert error.startswith("error: ")
    assert "champion" in error
    assert admin.json("models", "show", model)["aliases"] == {"champion": 1}


def test_lists_for_people_and_for_programs(admin: Cli, schema: str) -> None:
    catalog = f"list{uuid.uuid4().hex[:10]}"
    admin.ok("catalogs", "create", catalog, "--description", "for a test", "--tag", "team=blue")
    [row] = [one for one in admin.json("catalogs", "list") if one["name"] == catalog]
    assert (row["description"], row["tags"]) == ("for a test", {"team": "blue"})
    assert row["create_time"].endswith("Z")
    table = admin.ok("catalogs", "list").out
    assert [catalog, "admin", "for", "a", "test", "team=blue"] in [words[:6] for words in lines(table)]
    assert "\x1b" not in table
    assert len(admin.json("catalogs", "list", "--limit", "1")) == 1
    empty = admin.ok("deployments", "list", schema)
    assert (empty.out, empty.err) == ("", "no deployments\n")
    assert admin.json("deployments", "list", schema) == []


def test_a_reader_that_stops_reading_is_no_failure(admin: Cli) -> None:
    text = f"'{PROGRAM}' audit list --limit 1000 | head -n 1"
    ended = subprocess.run(
        ["bash", "-c", text], env=admin.environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout.startswith("sequence")
    assert "Traceback" not in ended.stderr


def test_what_one_may_not_one_is_told_how_to_get(admin: Cli, user: tuple[str, Cli], schema: str) -> None:
    name, ada = user
    error = ada.refused("models", "create", f"{schema}.mine")
    assert "CREATE_MODEL" in error
    assert f"hint: ask an owner: modelyard grants create YOUR_NAME CREATE_MODEL {schema}" in error
    catalog = schema.partition(".")[0]
    admin.ok("grants", "create", name, "use_catalog", catalog)
    admin.ok("grants", "create", name, "USE_SCHEMA", catalog)
    admin.ok("grants", "create", name, "CREATE_MODEL", schema)
    assert ["ALLOW", "CREATE_MODEL", name] in [
        sorted(words[:3]) for words in lines(admin.ok("grants", "list", schema).out)
    ]
    decision = ada.json("grants", "check", "CREATE_MODEL", schema)
    assert decision == {"allowed": True, "explanation": f"CREATE_MODEL is granted on schema '{schema}'"}
    assert ada.run("grants", "check", "EDIT", schema).code == 1
    ada.ok("models", "create", f"{schema}.mine")
    assert "Taken back." in admin.ok("grants", "delete", name, "CREATE_MODEL", schema).out
    assert "no such grant" in admin.ok("grants", "delete", name, "CREATE_MODEL", schema).out
    assert "MANAGE" in ada.refused("audit", "verify")


def test_a_policy_is_explained_and_an_approval_opens_it(
    client: Client, admin: Cli, user: tuple[str, Cli], schema: str, tmp_path: Path
) -> None:
    name, ada = user
    model, catalog = f"{schema}.iris", schema.partition(".")[0]
    (tmp_path / "weights").write_text("anything")
    client.models.create(model)
    client.versions.create(model, client.artifacts.upload(model, tmp_path / "weights").digest)
    for privilege in ("USE_CATALOG", "USE_SCHEMA", "APPROVE", "READ_METADATA"):
        client.grants.create(name, privilege, catalog)
    admin.ok("policies", "set", catalog, "--protect-alias", "champion", "--protect-deployments")
    for arguments in (
        ("aliases", "set", model, "champion=1"),
        ("deployments", "create", model, f"{model}/1"),
    ):
        error = admin.refused(*arguments)
        assert "needs 1 approval by somebody other than the author; has 0" in error
        assert "hint: see `modelyard policies explain VERSION`, with `--alias` for an alias" in error
    assert "by somebody else" in admin.refused("approvals", "review", f"{model}/1", "approve")
    assert "comment" in ada.refused("approvals", "review", f"{model}/1", "reject")
    assert ada.json("approvals", "review", f"{model}/1", "approve", "-m", "fine")["state"] == "APPROVED"
    assert ["state", "APPROVED"] in lines(admin.ok("approvals", "show", f"{model}/1").out)
    assert admin.json("aliases", "set", model, "champion=1") == {"champion": 1}
    of_model = ("audit", "list", "--resource-id", admin.json("models", "show", model)["id"])

    def movers() -> list[str]:
        events = [entry["event"] for entry in admin.json(*of_model)]
        return [event["actor_name"] for event in events if event["type"] == "catalog.alias.moved"]

    wait_until(movers)
    assert movers() == ["admin"]
    assert ["valid", "yes"] in lines(admin.ok("audit", "verify").out)


def test_a_signature_is_seen_but_its_hashes_only_by_who_may_read_the_files(
    client: Client, admin: Cli, user: tuple[str, Cli], schema: str, tmp_path: Path
) -> None:
    name, ada = user
    model, key = f"{schema}.signed", Key(tmp_path)
    (tmp_path / "weights").write_text("anything")
    client.models.create(model)
    digest = client.artifacts.upload(model, tmp_path / "weights").digest
    client.versions.create(model, digest)
    admin.ok("artifacts", "sign", f"{model}/1", "--key", str(key.private))
    for privilege in ("USE_CATALOG", "USE_SCHEMA", "READ_METADATA"):
        client.grants.create(name, privilege, schema.partition(".")[0])
    shown = ("artifacts", "signatures", f"{model}/1")
    assert "sha256:" in ada.ok(*shown).out
    assert "READ_ARTIFACT" in ada.refused(*shown, "--bundle")
    assert "payload" in admin.ok(*shown, "--bundle").out
    client.grants.create(name, "READ_ARTIFACT", model, resource_type="MODEL")
    wait_until(lambda: ada.run(*shown, "--bundle").code == 0)
    client.versions.create(model)
    assert "has no artifact" in admin.refused("artifacts", "signatures", f"{model}/2")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("catalogs", "show", "absent"), "error: catalog 'absent' does not exist\n"),
        (("versions", "show", "absent.ml.iris/1"), "error: catalog 'absent' does not exist\n"),
        (("models", "show", "not-three-parts"), "name"),
        (("aliases", "set", "a.b.c", "champion=1"), "'a'"),
        (("grants", "create", "admin", "FLY"), "FLY"),
        (("log", "/absent/model.onnx", "a.b.c"), "/absent/model.onnx does not exist"),
        (("--context", "elsewhere", "whoami"), "'elsewhere'"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(admin: Cli, arguments: tuple[str, ...], told: str) -> None:
    error = admin.refused(*arguments)
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert told in error


def test_an_installation_that_does_not_answer(admin: Cli, processes: Processes) -> None:
    ended = admin.run("whoami", MODELYARD_TARGET="127.0.0.1:1", MODELYARD_TOKEN="mya_x")
    assert ended.code == 1
    assert "127.0.0.1:1" in ended.err
    assert "hint: is it running there?" in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("fly",),
        ("catalogs", "fly"),
        ("catalogs", "create"),
        ("catalogs", "list", "--output", "xml"),
        ("aliases", "set", "a.b.c", "champion=best"),
    ],
)
def test_wrong_use_is_exit_code_2(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert "Usage: " in Cli(tmp_path).refused(*arguments, code=2)
