"""Environments of replicas, built by the real uv from wheels that lie in a folder."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from modelyard_inference.commands import UpdateDeployment
from modelyard_inference.environment_policy import OF_ARTIFACT, Environment, EnvironmentSource
from modelyard_inference.environments import EnvironmentFailed, archives, processes, uv
from modelyard_inference.environments import cache as cache_module
from modelyard_inference.environments.cache import SPARE, EnvironmentCache
from modelyard_inference.models import DeploymentState
from modelyard_kit import faults
from modelyard_kit.limits import Limit
from tests.framework import conda
from tests.framework.inference import call, creation, site, spec
from tests.framework.waiting import eventually
from tests.framework.wheels import write_wheel

Make = Callable[..., EnvironmentCache]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, which is all that uv knows, as an operator would tell it: by its own variables."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    write_wheel(folder, "replica_needs", "1.0")
    write_wheel(folder, "apple", "1.0", "pear>=2")
    write_wheel(folder, "apple", "2.0")
    write_wheel(folder, "pear", "2.5")
    return folder


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[EnvironmentCache] = []

    def cache(**changes: object) -> EnvironmentCache:
        settings = {"enabled": True, "needs": ("replica_needs",), "build_seconds": 60.0, **changes}
        one = EnvironmentCache(tmp_path / "environments", **settings)  # type: ignore[arg-type]
        one.prepare()
        made.append(one)
        return one

    yield cache
    for one in made:
        await one.close()


def artifact(folder: Path, requirements: str, *, python: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "requirements.txt").write_text(requirements)
    if python:
        (folder / "runtime.yaml").write_text(
            f"MODEL_DEPLOYMENT: {{INFERENCE_CONDA_ENV: {{INFERENCE_PYTHON_VERSION: '{python}'}}}}\n"
        )
    return folder


async def python_of(
    cache: EnvironmentCache,
    folder: Path,
    digest: str = "sha256:aa",
    environment: Environment = OF_ARTIFACT,
) -> str:
    """Return the Python of an artifact's environment as the reconciler asks for it: again, whenever it is woken."""
    while True:
        ended = asyncio.Event()
        python = await cache.python(environment, digest, folder, "python", signed=False, done=ended.set)
        if python is not None:
            return python
        await asyncio.wait_for(ended.wait(), 60)


def told(python: str, code: str) -> str:
    """Return what a program prints in an environment, started as replicas are: without our PYTHONPATH."""
    return subprocess.run(
        [python, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
        env={"PATH": os.environ["PATH"]},
    ).stdout.strip()


def environments(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


async def test_what_it_holds(tmp_path: Path, index: Path, make: Make) -> None:
    python = await python_of(make(), artifact(tmp_path / "a", "apple<2\n"))
    versions = "import apple, pear, replica_needs; print(apple.VERSION, pear.VERSION, replica_needs.VERSION)"
    assert told(python, versions) == "1.0 2.5 1.0"
    # Of this installation: its own packages and no other.
    assert told(python, "from importlib.metadata import version as v; print(v('modelyard'))")
    assert told(python, "import modelyard_inference as m; print(m.__path__[0])")
    for hidden in ("numpy", "sqlalchemy", "modelyard_catalog"):
        assert told(python, f"import importlib.util as u; print(u.find_spec({hidden!r}))") == "None"
    lock = (Path(python).parents[1] / "lock.txt").read_text()
    assert "apple==1.0" in lock
    assert "--hash=sha256:" in lock


async def test_nothing_asked_for_or_not_enabled(tmp_path: Path, index: Path, make: Make) -> None:
    (tmp_path / "plain").mkdir()
    assert await python_of(make(), tmp_path / "plain") == ""
    assert await python_of(make(enabled=False), artifact(tmp_path / "a", "nonsense ===\n")) == ""
    assert not environments(tmp_path / "environments")


def chosen(*lines: str) -> Environment:
    return Environment(EnvironmentSource.REQUIREMENTS, lines)


async def test_what_a_deployment_chooses_for_itself(tmp_path: Path, index: Path, make: Make) -> None:
    cache, folder = make(), artifact(tmp_path / "a", "no-such-package\n")
    assert await python_of(cache, folder, environment=Environment(EnvironmentSource.DEFAULT)) == ""
    first = await python_of(cache, folder, environment=chosen("apple==1.0"))
    assert told(first, "import apple; print(apple.VERSION)") == "1.0"
    second = await python_of(cache, folder, environment=chosen("apple==2.0"))
    assert told(second, "import apple; print(apple.VERSION)") == "2.0"
    # Shared with an artifact that asks for the same.
    assert await python_of(cache, artifact(tmp_path / "b", "apple==1.0\n"), "sha256:bb") == first
    assert len(environments(tmp_path / "environments")) == 2
    bare = await python_of(cache, folder, environment=chosen())
    assert told(bare, "import importlib.util as u; print(u.find_spec('apple'))") == "None"
    with pytest.raises(EnvironmentFailed, match="MODELYARD_BUILD_ENVIRONMENTS=true"):
        await python_of(make(enabled=False), folder, environment=chosen("apple"))


async def test_what_is_being_built_and_since_when(tmp_path: Path, index: Path, make: Make) -> None:
    noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
    cache, ended = make(clock=lambda: noon), asyncio.Event()
    folder = artifact(tmp_path / "a", "apple<2\n")
    async with cache._slot:  # as long as another one is built
        for digest in ("sha256:aa", "sha256:bb"):
            assert (
                await cache.python(OF_ARTIFACT, digest, folder, "python", signed=False, done=ended.set)
                is None
            )
        build = cache.building("sha256:aa")
        assert build is not None
        assert (build.began, build) == (noon, cache.building("sha256:bb"))
        assert str(build) == f"environment {build.wish[:12]} is being built since 12:00:00 UTC"
        assert cache.building("sha256:cc") is None
    await asyncio.wait_for(ended.wait(), 60)
    assert cache.building("sha256:aa") is None
    assert await python_of(cache, folder, "sha256:bb")


async def test_what_nobody_waits_for_any_more_is_not_built(tmp_path: Path, index: Path, make: Make) -> None:
    cache, folder = make(), artifact(tmp_path / "a", "pear\n")
    own, ended = chosen("apple==1.0"), asyncio.Event()
    async with cache._slot:
        for environment in (own, OF_ARTIFACT):
            python = await cache.python(
                environment, "sha256:aa", folder, "python", signed=False, done=ended.set
            )
            assert python is None
        cache.stop_unwanted({"sha256:aa"})
        await asyncio.wait_for(ended.wait(), 60)
        assert cache.building(own.use("sha256:aa")) is None
        assert cache.building("sha256:aa")
        ended.clear()
    await asyncio.wait_for(ended.wait(), 60)
    python = await python_of(cache, folder)
    assert environments(tmp_path / "environments") == [Path(python).parents[1]]


async def test_artifacts_that_ask_for_the_same_share(tmp_path: Path, index: Path, make: Make) -> None:
    cache = make()
    first = await python_of(cache, artifact(tmp_path / "a", "apple==1.0\n"))
    # Asked for in other words, it resolves to the same lock.
    second = await python_of(cache, artifact(tmp_path / "b", "pear\napple<2  # the old one\n"), "sha256:bb")
    other = await python_of(cache, artifact(tmp_path / "c", "apple\n"), "sha256:cc")
    assert first == second != other
    assert len(environments(tmp_path / "environments")) == 2


async def test_what_was_built_needs_no_index_any_more(tmp_path: Path, index: Path, make: Make) -> None:
    folder = artifact(tmp_path / "a", "apple\n")
    python = await python_of(make(), folder)
    for wheel in index.iterdir():
        wheel.unlink()
    assert await python_of(make(), folder) == python
    assert told(python, "import apple; print(apple.VERSION)") == "2.0"


async def test_two_builders_at_once(tmp_path: Path, index: Path, make: Make) -> None:
    folder = artifact(tmp_path / "a", "apple\n")
    first, second = await asyncio.gather(python_of(make(), folder), python_of(make(), folder))
    assert first == second
    assert len(environments(tmp_path / "environments")) == 1
    assert not list((tmp_path / "environments").glob(".partial-*"))


async def test_a_build_that_was_cut_off_leaves_nothing(tmp_path: Path, index: Path, make: Make) -> None:
    cache, folder = make(), artifact(tmp_path / "a", "apple\n")
    assert (
        await cache.python(OF_ARTIFACT, "sha256:aa", folder, "python", signed=False, done=lambda: None)
        is None
    )
    await cache.close()
    left = tmp_path / "environments" / ".partial-left"  # as after a kill
    (left / "env").mkdir(parents=True)
    again = make()
    assert not left.exists()
    assert not environments(tmp_path / "environments")
    assert await python_of(again, folder)


@pytest.mark.parametrize(
    ("requirements", "texts"),
    [
        ("apple==9\n", ("uv pip compile failed", "apple==9", "unsatisfiable")),
        ("apple==1.0\npear==3\n", ("pear", "unsatisfiable")),
        ("no-such-package\n", ("no-such-package was not found",)),
        ("apple==1.0\n--extra-index-url http://x\n", ("requirements.txt, line 2: options of pip",)),
    ],
)
async def test_requirements_that_cannot_be_had(
    tmp_path: Path, index: Path, make: Make, requirements: str, texts: tuple[str, ...]
) -> None:
    with pytest.raises(EnvironmentFailed) as caught:
        await python_of(make(), artifact(tmp_path / "a", requirements))
    for text in texts:
        assert text in str(caught.value)
    assert not environments(tmp_path / "environments")


async def test_packages_that_would_have_to_be_compiled(tmp_path: Path, index: Path, make: Make) -> None:
    (index / "cherry-1.0.tar.gz").write_bytes(b"its setup.py would run here")
    with pytest.raises(EnvironmentFailed, match=r"(?s)cherry.*no usable wheels"):
        await python_of(make(), artifact(tmp_path / "a", "cherry\n"))


async def test_a_python_that_is_not_here(tmp_path: Path, index: Path, make: Make) -> None:
    with pytest.raises(
        EnvironmentFailed, match="Python 3.99, which is asked for, is not on this machine"
    ) as caught:
        await python_of(make(), artifact(tmp_path / "a", "apple\n", python="3.99"))
    assert "uv python find failed" in str(caught.value)


async def test_a_failure_is_told_for_a_while_and_then_tried_again(
    tmp_path: Path, index: Path, make: Make
) -> None:
    now = [0.0]
    cache, folder = make(monotonic=lambda: now[0]), artifact(tmp_path / "a", "plum\n")
    for _ in range(2):
        with pytest.raises(EnvironmentFailed, match="plum"):
            await python_of(cache, folder)
    write_wheel(index, "plum", "1.0")
    with pytest.raises(EnvironmentFailed, match="plum"):
        await python_of(cache, folder)
    now[0] += 60
    assert told(await python_of(cache, folder), "import plum; print(plum.VERSION)") == "1.0"


async def test_a_fault_after_the_build_shows_nothing_half(tmp_path: Path, index: Path, make: Make) -> None:
    now = [0.0]
    cache, folder = make(monotonic=lambda: now[0]), artifact(tmp_path / "a", "apple\n")
    faults.configure("inference.environment.built=error*1")
    try:
        with pytest.raises(EnvironmentFailed, match="inference.environment.built"):
            await python_of(cache, folder)
    finally:
        faults.configure("")
    assert not environments(tmp_path / "environments")
    now[0] += 60
    assert await python_of(cache, folder)


async def test_time_is_bounded(tmp_path: Path, index: Path, make: Make) -> None:
    with pytest.raises(EnvironmentFailed, match="uv pip compile took longer than 0.001 s"):
        await python_of(make(build_seconds=0.001), artifact(tmp_path / "a", "apple\n"))


async def test_without_uv(tmp_path: Path, index: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentFailed, match=r"pip install 'modelyard\[environments\]'"):
        await python_of(make(), artifact(tmp_path / "a", "apple\n"))


async def test_a_program_that_is_killed_says_nothing_and_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailed, match="it was ended by SIGKILL"):
        await processes.run("/bin/sh", "-c", "kill -9 $$", folder=tmp_path, seconds=60, what="it")
    with pytest.raises(EnvironmentFailed, match="it failed with exit status 3"):
        await processes.run("/bin/sh", "-c", "exit 3", folder=tmp_path, seconds=60, what="it")


async def test_settings_of_the_service_stay_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "uv"
    program.write_text("#!/bin/sh\nenv\n")
    program.chmod(0o700)
    monkeypatch.setattr(uv, "program", lambda: str(program))
    monkeypatch.setenv("MODELYARD_TOKEN_FILE", "secret")
    monkeypatch.setenv("VIRTUAL_ENV", "/nowhere")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "of the operator")
    printed = await uv.run("x", folder=tmp_path, seconds=60)
    assert "MODELYARD_" not in printed
    assert "VIRTUAL_ENV" not in printed
    assert "UV_DEFAULT_INDEX=of the operator" in printed
    assert "UV_PYTHON_DOWNLOADS=never" in printed


async def test_unused_environments_are_removed_but_for_the_newest(
    tmp_path: Path, index: Path, make: Make
) -> None:
    cache, folder = make(), tmp_path / "environments"
    old = Path(await python_of(cache, artifact(tmp_path / "a", "apple\n"))).parents[1]
    used = Path(await python_of(cache, artifact(tmp_path / "b", "pear\n"), "sha256:bb")).parents[1]
    for number in range(SPARE):
        write_wheel(index, "fig", f"{number}.0")
        made = await python_of(
            cache, artifact(tmp_path / f"f{number}", f"fig=={number}.0\n"), f"sha256:f{number}"
        )
        os.utime(Path(made).parents[1], (number + 100, number + 100))
    for path in (old, used):
        os.utime(path, (1, 1))
    again = make()  # what is used is known after a restart too
    again.prune({"sha256:bb"})
    assert set(environments(folder)) >= {used}
    assert not old.exists()
    assert len(environments(folder)) == SPARE + 1
    assert len(list((folder / ".wishes").iterdir())) == SPARE + 1
    # It comes back when it is asked for.
    assert Path(await python_of(again, tmp_path / "a")).parents[1] == old


async def test_of_what_deployments_chose_only_what_they_still_choose_is_kept(
    tmp_path: Path, index: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "SPARE", 0)
    cache, folder = make(), artifact(tmp_path / "a", "pear\n")
    before, after = chosen("apple==1.0"), chosen("apple==2.0")
    for environment in (OF_ARTIFACT, before, after):
        python = await python_of(cache, folder, environment=environment)
    cache.prune({environment.use("sha256:aa") for environment in (before, after)})
    assert len(environments(tmp_path / "environments")) == 2
    cache.prune({after.use("sha256:aa")})
    assert environments(tmp_path / "environments") == [Path(python).parents[1]]


@pytest.fixture
def packed(tmp_path: Path, index: Path) -> Path:
    """An artifact that brings an environment with apple 1.0 and a conda-unpack that tells where it ran."""
    made, folder = tmp_path / "packed", tmp_path / "artifact"
    folder.mkdir()
    run_uv(tmp_path, "venv", made)
    run_uv(tmp_path, "pip", "install", "--python", made / "bin" / "python", "apple<2")
    (made / "bin" / "conda-unpack").write_text(
        "import pathlib; pathlib.Path(__file__).with_name('ran').write_text(__file__)\n"
    )
    pack(made, folder)
    return folder


def run_uv(folder: Path, *arguments: str | Path) -> None:
    subprocess.run([uv.program(), "--quiet", *arguments], check=True, cwd=folder)


def pack(made: Path, folder: Path, *, python: str = "") -> None:
    with tarfile.open(folder / "env.tar.gz", "w:gz") as archive:
        archive.add(made, ".")
    bring(folder, python=python)


def bring(folder: Path, *, python: str = "") -> None:
    """Let an artifact say that its environment is in env.tar.gz."""
    version = f", INFERENCE_PYTHON_VERSION: '{python}'" if python else ""
    (folder / "runtime.yaml").write_text(
        f"MODEL_DEPLOYMENT: {{INFERENCE_CONDA_ENV: {{INFERENCE_ENV_PATH: env.tar.gz{version}}}}}\n"
    )


async def test_an_environment_that_the_artifact_brings(tmp_path: Path, packed: Path, make: Make) -> None:
    python = await python_of(make(allow_code=True), packed)
    versions = "import apple, pear, replica_needs, modelyard_inference; print(apple.VERSION, pear.VERSION)"
    assert told(python, versions) == "1.0 2.5"
    assert (Path(python).parent / "ran").read_text() == str(Path(python).with_name("conda-unpack"))
    # It is found again, also by others and after a restart.
    assert await python_of(make(allow_code=True), packed) == python
    assert len(environments(tmp_path / "environments")) == 1


def venv_pack(made: Path, archive: Path) -> None:
    arguments = ["--quiet", "--force", "--prefix", made, "--output", archive]
    subprocess.run([sys.executable, "-m", "venv_pack", *arguments], check=True, cwd=made.parent)


async def test_what_venv_pack_writes(tmp_path: Path, packed: Path, make: Make) -> None:
    """The archive is made by the program that people pack with, of an environment that is gone when it is unpacked."""
    made = tmp_path / "packed"
    venv_pack(made, packed / "env.tar.gz")
    shutil.rmtree(made)
    python = await python_of(make(allow_code=True), packed)
    versions = "import apple, pear, replica_needs; print(apple.VERSION, pear.VERSION)"
    assert told(python, versions) == "1.0 2.5"
    assert told(python, "import sys; print(sys.prefix)") == str(Path(python).parents[1])


async def test_what_conda_pack_writes(tmp_path: Path, index: Path, make: Make) -> None:
    """Its own conda-unpack puts the new folder everywhere, once; what may stand in the way of a replica goes."""
    folder = tmp_path / "artifact"
    folder.mkdir()
    made = conda.conda_environment(tmp_path)
    run_uv(tmp_path, "pip", "install", "--python", made / "bin" / "python", "apple<2")
    packages = conda.site_packages(made)
    (packages.parent / "EXTERNALLY-MANAGED").write_text("[externally-managed]\nError=conda alone may\n")
    (packages / "modelyard").mkdir()  # of the release that the model was logged with
    (packages / "modelyard" / "__init__.py").touch()
    (packages / "modelyard-0.0.1.dist-info").mkdir()
    (packages / "modelyard-0.0.1.dist-info" / "METADATA").write_text("Name: modelyard\nVersion: 0.0.1\n")
    conda.conda_pack(made, folder / "env.tar.gz")
    bring(folder)
    for gone in (made, tmp_path / "pkgs"):
        shutil.rmtree(gone)
    python = await python_of(make(allow_code=True), folder)
    root = Path(python).parents[1]
    assert told(python, "import apple, pear, replica_needs; print(apple.VERSION, pear.VERSION)") == "1.0 2.5"
    assert told(python, "import sys; print(sys.prefix)") == str(root)
    versions = "from importlib.metadata import version; import modelyard_kit; print(version('modelyard'))"
    assert told(python, versions) == importlib.metadata.version("modelyard")
    assert (root / conda.TEXT).read_text() == f"home={root}/share\n"
    assert f"{root}/share".encode() in (root / conda.BINARY).read_bytes()
    (root / conda.TEXT).write_text("as it was left")
    assert await python_of(make(allow_code=True), folder) == python
    assert (root / conda.TEXT).read_text() == "as it was left"


async def test_two_that_unpack_at_once(tmp_path: Path, packed: Path, make: Make) -> None:
    first, second = await asyncio.gather(
        python_of(make(allow_code=True), packed), python_of(make(allow_code=True), packed)
    )
    for python in (first, second):
        assert told(python, "import apple; print(apple.VERSION)") == "1.0"


async def test_what_it_brings_is_a_program(packed: Path, make: Make) -> None:
    with pytest.raises(EnvironmentFailed, match="MODELYARD_ALLOW_MODEL_CODE"):
        await python_of(make(), packed)


async def test_the_python_of_the_archive(tmp_path: Path, packed: Path, make: Make) -> None:
    pack(tmp_path / "packed", packed, python="3.99")
    with pytest.raises(EnvironmentFailed, match=r"env.tar.gz has Python 3\.\d+, and runtime.yaml says 3.99"):
        await python_of(make(allow_code=True), packed)
    assert not environments(tmp_path / "environments")


async def test_archives_that_hold_no_environment(
    tmp_path: Path, packed: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    cache = make(allow_code=True, monotonic=lambda: now[0])

    async def refusal() -> str:
        now[0] += 100
        with pytest.raises(EnvironmentFailed) as caught:
            await python_of(cache, packed)
        assert not environments(tmp_path / "environments")
        return str(caught.value)

    whole = (packed / "env.tar.gz").read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2]):
        (packed / "env.tar.gz").write_bytes(content)
        assert "no tar archive" in await refusal()
    outside = tmp_path / "outside"
    with tarfile.open(packed / "env.tar.gz", "w") as archive:
        link = tarfile.TarInfo("bin")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("bin/outside"))
    assert "no tar archive" in await refusal()
    assert not outside.exists()
    (tmp_path / "empty").mkdir()
    pack(tmp_path / "empty", packed)
    assert "no bin/python" in await refusal()
    (packed / "env.tar.gz").write_bytes(whole)
    small = Limit("environment_bytes", 1000, "bytes", "")
    monkeypatch.setitem(archives.LIMITS, "environment_bytes", small)
    assert "holds more than 1,000 bytes" in await refusal()


async def test_a_deployment_says_why_its_environment_cannot_be_had(
    index: Path, fresh_database: Callable[[str], str]
) -> None:
    async with site(fresh_database("modelyard_inference")) as place:
        place.upstream.add(1)
        place.upstream.requirements["prod.ml.iris/2"] = b"apple==9\n"
        place.upstream.add(2)
        place.build_environments = True
        async with place.life() as inference:
            await inference.deployments.create(call(), creation())
            await inference.until_state(
                DeploymentState.ACTIVE
            )  # it asks for nothing: the default environment
            change = UpdateDeployment("prod.ml.iris", "", targets=(spec("prod.ml.iris/2"),))
            await inference.deployments.update(call(), change)
            failed = await inference.until_state(DeploymentState.FAILED)
            assert "its environment could not be built: uv pip compile failed" in failed.state_message
            assert "apple==9" in failed.state_message
            assert failed.targets[0].serving == "prod.ml.iris/1"


async def test_an_environment_that_a_deployment_chooses_and_that_cannot_be_had(
    index: Path, fresh_database: Callable[[str], str]
) -> None:
    async with site(fresh_database("modelyard_inference")) as place:
        place.upstream.add(1)
        place.build_environments = True
        async with place.life() as inference:
            await inference.deployments.create(call(), creation())
            await inference.until_state(DeploymentState.ACTIVE)
            old = {handle.process_id for handle in await inference.launcher.list()}

            async def none_is_old() -> bool:
                return old.isdisjoint(handle.process_id for handle in await inference.launcher.list())

            change = UpdateDeployment("prod.ml.iris", "", environment=chosen("apple==9"))
            await inference.deployments.update(call(), change)
            failed = await inference.until_state(DeploymentState.FAILED)
            assert "its environment could not be built: uv pip compile failed" in failed.state_message
            assert "apple==9" in failed.state_message
            assert old <= {handle.process_id for handle in await inference.launcher.list()}
            default = Environment(EnvironmentSource.DEFAULT)
            change = UpdateDeployment("prod.ml.iris", "", environment=default)
            await inference.deployments.update(call(), change)
            await inference.until_state(DeploymentState.ACTIVE)
            await eventually(none_is_old)
