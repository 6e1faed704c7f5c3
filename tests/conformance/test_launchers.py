"""The launcher suite on every launcher, and what is particular to each."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from modelyard_inference.launchers import Launcher, processes
from modelyard_inference.launchers.local import LocalLauncher, RunFolderUnusable
from tests.conformance.launcher_suite import LauncherSuite, _spec, _until_loaded
from tests.framework import folders
from tests.framework.inference import TINY_REPLICA

COMMAND = (sys.executable, str(TINY_REPLICA))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short folder; every replica in it is ended afterwards."""
    made = Path(tempfile.mkdtemp(prefix="my-", dir=folders.SHORT))

    async def stop() -> None:
        launcher = LocalLauncher(made, COMMAND)
        await asyncio.gather(*(launcher.stop(handle, 0.0) for handle in await launcher.list()))

    yield made
    if (made / "replicas").exists():
        asyncio.run(stop())
    shutil.rmtree(made)


class TestLocalLauncher(LauncherSuite):
    """Processes of this machine."""

    @pytest.fixture
    def make(self, folder: Path) -> Callable[[], Launcher]:
        def make() -> LocalLauncher:
            launcher = LocalLauncher(folder, COMMAND)
            launcher.prepare()
            return launcher

        return make

    async def test_files_are_for_this_user_alone(self, launcher: Launcher, folder: Path) -> None:
        handle = await launcher.start(_spec(launcher))
        await _until_loaded(launcher, handle)
        assert (folder / "replicas" / handle.replica_id / "pid").read_text() == f"{handle.process_id}\n"
        for path in (folder / "s", folder / "replicas", folder / "replicas" / handle.replica_id):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        for name in ("config.json", "log"):
            path = folder / "replicas" / handle.replica_id / name
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

    async def test_replica_gets_its_variables_and_nothing_secret_from_the_environment(
        self, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MODELYARD_TOKEN_FILE", "/secret")
        spec = replace(_spec(launcher), variables=(("LANG", "C.UTF-8"), ("LEVEL", "a b=c")))
        monkeypatch.setenv("LANG", "C")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
        handle = await launcher.start(spec)
        await _until_loaded(launcher, handle)
        environment = Path(f"/proc/{handle.process_id}/environ")
        if environment.exists():
            found = environment.read_bytes().split(b"\0")
            assert not [each for each in found if each.startswith(b"MODELYARD")]
            assert {b"LEVEL=a b=c", b"LANG=C.UTF-8", b"CUDA_VISIBLE_DEVICES=1"} <= set(found)

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems bind no process to cores")
    async def test_bounds_hold_from_the_start(self, launcher: Launcher) -> None:
        """And replicas that are bound to cores keep out of each other's way."""
        made = [_spec(launcher) for _ in range(2)]
        specs = [replace(s, config=replace(s.config, cpus=1, memory_bytes=2**30)) for s in made]
        handles = [await launcher.start(spec) for spec in specs]
        cores = [os.sched_getaffinity(handle.process_id) for handle in handles]
        own = os.sched_getaffinity(0)
        assert len(set().union(*cores)) == min(2, len(own))
        assert all(len(bound) == 1 for bound in cores)
        for handle in handles:
            assert resource.prlimit(handle.process_id, resource.RLIMIT_DATA) == (2**30, 2**30)
            await _until_loaded(launcher, handle)
            variables = Path(f"/proc/{handle.process_id}/environ").read_bytes().split(b"\0")
            assert b"OMP_NUM_THREADS=1" in variables

    async def test_log_of_the_run_before_is_kept(self, launcher: Launcher, folder: Path) -> None:
        spec = _spec(launcher)
        for _ in range(2):
            handle = await launcher.start(spec)
            await _until_loaded(launcher, handle)
            await launcher.stop(handle, 10.0)
        logs = sorted(path.name for path in (folder / "replicas" / spec.id).glob("log*"))
        assert logs == ["log", "log.1"]


@pytest.mark.parametrize("path", ["relative", f"/tmp/{'long' * 30}"])
def test_unusable_run_folder_is_refused_with_the_fix(path: str) -> None:
    with pytest.raises(RunFolderUnusable, match="MODELYARD_RUN_DIRECTORY"):
        LocalLauncher(Path(path), COMMAND).prepare()


def test_longest_run_folder_leaves_room_for_a_socket() -> None:
    room = 103 - len("/s/") - 12
    launcher = LocalLauncher(Path("/tmp/" + "x" * (room - len("/tmp/"))), COMMAND)
    assert len(launcher.address("0198c0de-0000-7000-8000-0123456789ab").removeprefix("unix:")) == 103


def test_processes_are_known_by_their_start() -> None:
    own = os.getpid()
    assert processes.start_time(own)
    assert processes.start_time(own) == processes.start_time(own)
    assert "python" in processes.command_line(own)
    assert processes.start_time(2**22 + 1) == processes.command_line(2**22 + 1) == ""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere ps tells")
def test_the_command_of_a_process_that_becomes_another_is_known_all_the_time() -> None:
    again = '[ "$1" -gt 0 ] && exec /bin/sh -c "$2" marker $(($1 - 1)) "$2"; read line'
    with subprocess.Popen(["/bin/sh", "-c", again, "marker", "500", again], stdin=subprocess.PIPE) as process:
        while "marker 0 " not in (command := processes.command_line(process.pid)):
            assert "marker" in command
        process.kill()


def test_processes_without_proc_are_known_by_ps(monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("ps"):
        pytest.skip("this machine has no ps")
    monkeypatch.setattr(processes, "_PROC", Path("/nowhere"))
    own = os.getpid()
    assert processes.start_time(own)
    assert "python" in processes.command_line(own)
    assert processes.start_time(2**22 + 1) == ""


def test_another_service_does_not_work_in_the_same_folder(folder: Path) -> None:
    first, second = (LocalLauncher(folder, COMMAND) for _ in range(2))
    for each in (first, second):
        each.prepare()
    told = f"another inference service works in {folder}"
    with first.alone(), pytest.raises(RunFolderUnusable, match=told), second.alone():
        pass
    with second.alone():
        pass
