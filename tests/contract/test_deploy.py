"""The container image and the compose file: linted, valid, and naming only what exists in this repository."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from socket import AF_UNIX, socket
from typing import Any
from urllib.parse import parse_qs, urlsplit

import grpc
import pytest
import yaml
from grpc_health.v1 import health, health_pb2_grpc
from packaging.requirements import Requirement

from modelyard_inference.environments.wishes import needs_of
from modelyard_inference.runtimes import RUNTIMES
from modelyard_kit import PREFIX
from modelyard_kit.config import Settings

from .catalogue import ROOT

DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
COMPOSE = DEPLOY / "compose.yaml"
HEALTHCHECK = DEPLOY / "docker" / "healthcheck.py"
# What a user has to set before the first start; see docs/deploy.md.
VARIABLES = {
    "MODELYARD_TLS_DIRECTORY": "./certificates",
    "S3_ACCESS_KEY": "someaccesskey",
    "S3_SECRET_KEY": "somesecretkey",
}


def run(*command: str | Path) -> None:
    """Run a program of this environment; its output is the failure's message."""
    program = shutil.which(str(command[0]), path=str(Path(sys.executable).parent)) or str(command[0])
    arguments = [program, *map(str, command[1:])]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}{done.stderr}"


def interpolate(text: str) -> str:
    """Fill in `${NAME}`, `${NAME:-default}` and `${NAME:?message}` as compose does."""

    def value(found: re.Match[str]) -> str:
        name, default = found[1], found[3] if found[2] == ":-" else None
        filled = VARIABLES.get(name, default)
        assert filled is not None, f"{name} has no default: add it to VARIABLES and to docs/deploy.md"
        return filled

    return re.sub(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}", value, text)


@cache
def services() -> dict[str, dict[str, Any]]:
    document = yaml.safe_load(interpolate(COMPOSE.read_text(encoding="utf-8")))
    return dict(document["services"])


def modules() -> list[str]:
    """Services of the compose file whose command is one of our import packages."""
    return [
        name
        for name, service in services().items()
        if str(service.get("command", [""])[0]).startswith("modelyard_")
    ]


def environment(name: str) -> dict[str, str]:
    return {key: str(value) for key, value in services()[name].get("environment", {}).items()}


def mounts(name: str) -> dict[str, dict[str, Any]]:
    return {mount["target"]: mount for mount in services()[name].get("volumes", [])}


def settings_type(package: str) -> type[Settings]:
    """The settings class of a package: what its app module gives to the kit."""
    app = importlib.import_module(f"{package}.app")
    found = [
        value
        for value in vars(app).values()
        if inspect.isclass(value) and issubclass(value, Settings) and value.__module__.startswith(package)
    ]
    assert len(found) == 1
    return found[0]


def dockerfile(instruction: str) -> list[str]:
    """Arguments of every occurrence of an instruction, continuation lines joined."""
    text = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(rf"^{instruction} +(.*)$", text, re.MULTILINE)


def test_dockerfile_passes_hadolint() -> None:
    run("hadolint", DOCKERFILE)


def test_yaml_passes_yamllint() -> None:
    run("yamllint", "--strict", DEPLOY)


def test_compose_file_fits_the_compose_specification() -> None:
    run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_dockerfile_copies_what_exists() -> None:
    sources = [word for line in dockerfile("COPY") if "--from=" not in line for word in line.split()[:-1]]
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []


def extras() -> set[str]:
    """What the image has of Modelyard."""
    (found,) = re.findall(r"^EXTRAS=(.*)$", "\n".join(dockerfile("ARG")), re.MULTILINE)
    return set(found.split(","))


def test_dockerfile_installs_extras_that_exist_and_starts_a_package_that_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert extras() <= set(project["optional-dependencies"])
    (package,) = yaml.safe_load(dockerfile("CMD")[-1])
    importlib.import_module(package)


def test_the_image_has_all_that_the_lock_pins_for_models() -> None:
    (locked,) = re.findall(r"^COMPILE_LOCK := (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    # `suite` is for one machine: what containers need of it is named by itself.
    wanted = {*re.findall(r"--extra (\S+)", locked), "server", "sklearn", "onnx"} - {"suite"}
    assert {"xgboost", "lightgbm", "mlflow", "environments", "parquet"} <= wanted
    assert wanted <= extras()
    assert set(RUNTIMES) - extras() == {"torch", "transformers", "score", "python"}


def test_the_image_has_the_libraries_that_wheels_do_not_bring() -> None:
    """All but those of the C and C++ runtimes, which the image of Python has."""
    package = importlib.util.find_spec("lightgbm")
    assert package is not None
    assert package.submodule_search_locations is not None
    (library,) = Path(package.submodule_search_locations[0]).rglob("lib_lightgbm.*")
    if sys.platform == "linux":
        assert b"libgomp.so.1\0" in library.read_bytes()
    assert any(" libgomp1 " in line for line in dockerfile("RUN"))


def test_environments_are_built_from_a_folder_of_wheels() -> None:
    given = environment("inference")
    assert given["UV_OFFLINE"] == "1"  # it has no network, and would wait for one
    assert mounts("inference")[given["UV_FIND_LINKS"]]["read_only"]
    assert "environments" in extras()
    guide = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    (download,) = re.findall(r"^pip download (?:.*\\\n)*(.*)$", guide, re.MULTILINE)
    told = {one.name: one.specifier for one in map(Requirement, shlex.split(download))}
    for need in map(Requirement, needs_of("sklearn", signed=False, traced=False)):
        assert {bound for bound in need.specifier if bound.operator == "<"} <= set(told[need.name]), need


def test_programs_in_the_image_that_the_compose_file_runs_were_copied_there() -> None:
    (copied,) = [line.split()[:-1] for line in dockerfile("COPY") if line.endswith("/opt/modelyard/deploy/")]
    used = set(re.findall(r"/opt/modelyard/deploy/([\w.]+)", COMPOSE.read_text(encoding="utf-8")))
    assert used
    assert used <= {Path(source).name for source in copied}


def test_every_process_of_the_suite_is_there() -> None:
    packages = {services()[name]["command"][0] for name in modules()}
    assert packages == {
        f"modelyard_{name}" for name in ("governance", "catalog", "artifact", "inference", "gateway")
    }
    assert {"envoy", "postgres", "s3"} <= set(services())


@pytest.mark.parametrize("name", modules())
def test_settings_are_complete_and_known(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown variable is ignored when a service starts, so a misspelt one must be found here."""
    kind = settings_type(services()[name]["command"][0])
    given = {key: value for key, value in environment(name).items() if key.startswith(PREFIX)}
    assert {key.removeprefix(PREFIX).lower() for key in given} <= set(kind.model_fields)
    for key in [key for key in os.environ if key.startswith(PREFIX)]:
        monkeypatch.delenv(key)
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    kind()


@pytest.mark.parametrize("name", modules())
def test_paths_in_settings_are_mounted(name: str) -> None:
    targets = tuple(f"{target}/" for target in mounts(name))
    for key, value in environment(name).items():
        path = parse_qs(urlsplit(value).query).get("host", [value.removeprefix("unix:")])[0]
        if path.startswith("/"):
            assert f"{path}/".startswith(targets), (
                f"{name}: {key}={value} is in none of the mounted folders {targets}"
            )


@pytest.mark.parametrize("name", services())
def test_mounted_files_exist(name: str) -> None:
    for mount in mounts(name).values():
        made = mount.get("bind", {}).get("create_host_path", False)
        if mount["type"] == "bind" and not made and mount["source"] != VARIABLES["MODELYARD_TLS_DIRECTORY"]:
            assert (DEPLOY / mount["source"]).is_file(), mount["source"]


def test_every_database_is_made() -> None:
    made = set(
        re.findall(r"CREATE DATABASE (\w+);", (DEPLOY / "postgres/databases.sql").read_text(encoding="utf-8"))
    )
    used = {
        urlsplit(environment(name).get("MODELYARD_DATABASE", "")).path.strip("/") for name in modules()
    } - {""}
    assert used == made


def test_secrets_are_made_where_the_services_look(tmp_path: Path) -> None:
    run(sys.executable, DEPLOY / "docker" / "make_secrets.py", tmp_path)
    run(sys.executable, DEPLOY / "docker" / "make_secrets.py", tmp_path)
    for name in modules():
        file = Path(environment(name)["MODELYARD_TOKEN_FILE"])
        target, mount = next((t, m) for t, m in mounts(name).items() if file.is_relative_to(t))
        made = tmp_path / mount.get("volume", {}).get("subpath", "") / file.relative_to(target)
        assert made.stat().st_mode & 0o777 == 0o600, made
    assert (tmp_path / "installation" / "admin.token").is_file()


def test_only_governance_sees_every_secret() -> None:
    whole = {
        name
        for name in services()
        for m in mounts(name).values()
        if m["source"] == "secrets" and "volume" not in m
    }
    assert whole == {"secrets", "governance"}


def test_only_envoy_is_reachable_and_where_it_listens() -> None:
    assert {name for name, service in services().items() if "ports" in service} == {"envoy"}
    (port,) = services()["envoy"]["ports"]
    assert port.rpartition(":")[2] == environment("gateway")["MODELYARD_LISTEN"].rpartition(":")[2]


def test_model_code_has_no_network() -> None:
    assert services()["inference"]["network_mode"] == "none"


def test_the_mounted_bootstrap_is_the_one_the_gateway_renders(monkeypatch: pytest.MonkeyPatch) -> None:
    from modelyard_gateway.render import bootstrap

    for key, value in environment("gateway").items():
        monkeypatch.setenv(key, value)
    rendered = bootstrap(settings_type("modelyard_gateway")())  # type: ignore[arg-type]
    assert yaml.safe_load((DEPLOY / "envoy/bootstrap.yaml").read_text(encoding="utf-8")) == rendered


def test_healthcheck_asks_the_grpc_health_service(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/s"
    server = grpc.server(ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    server.add_insecure_port(address)
    server.start()
    try:
        assert healthcheck(address) == 0
    finally:
        server.stop(0).wait()
    assert healthcheck(address) == 1


@pytest.mark.parametrize(("status", "expected"), [("200 OK", 0), ("503 Service Unavailable", 1)])
def test_healthcheck_asks_envoy(tmp_path: Path, status: str, expected: int) -> None:
    admin = tmp_path / "admin.sock"
    with socket(AF_UNIX) as listener:
        listener.bind(str(admin))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n".encode())

        thread = threading.Thread(target=answer)
        thread.start()
        assert healthcheck("--envoy", str(admin)) == expected
        thread.join()


def healthcheck(*arguments: str) -> int:
    return subprocess.run([sys.executable, HEALTHCHECK, *arguments], timeout=30, check=False).returncode
