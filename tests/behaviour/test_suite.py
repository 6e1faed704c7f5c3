"""`modelyard up`, `status`, `down`, and what they do about things that go wrong: real processes only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from modelyard_suite import plan, suite
from modelyard_suite.home import Home, Running
from modelyard_suite.supervisor import end_leftover, is_alive
from tests.framework import folders
from tests.framework.cli import PROGRAM, Cli
from tests.framework.waiting import wait_until

PROCESSES = ["supervisor", "postgres", "governance", "catalog", "artifact", "inference", "gateway", "envoy"]


@pytest.fixture
def cli() -> Iterator[Cli]:
    """The command line on a home of its own; whatever still runs there is stopped afterwards."""
    with tempfile.TemporaryDirectory(prefix="my-", dir=folders.SHORT, ignore_cleanup_errors=True) as folder:
        cli = Cli(Path(folder))
        try:
            yield cli
        finally:
            cli.run("down")


@pytest.fixture
def listen() -> str:
    """An address that is free."""
    return f"127.0.0.1:{plan.free_port()}"


def home_of(cli: Cli) -> Home:
    return Home(cli.home / "suite")


def running(cli: Cli, name: str) -> Running:
    """Return the process of that name."""
    state = home_of(cli).state()
    assert state is not None
    return state.processes[name]


def by_name(cli: Cli) -> dict[str, Any]:
    """Return what `status` says of each process."""
    return {row["name"]: row for row in cli.json("status")["processes"]}


def alive() -> set[int]:
    """Return the ids of all processes but those that have ended and were not collected."""
    return {
        one.pid
        for one in psutil.process_iter(["status"])
        if one.info["status"] not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    }


def test_up_status_down(cli: Cli, listen: str) -> None:
    cli = Cli(cli.home, apart=True)
    assert cli.run("status", "--output", "json").json == {"running": False}
    assert "`modelyard up`" in cli.refused("down")
    out = cli.ok("up", "--detach", "--listen", listen).out
    assert listen in out
    status = cli.json("status")
    assert (status["running"], status["ready"], status["target"]) == (True, True, listen)
    assert [row["name"] for row in status["processes"]] == PROCESSES
    assert all(row["state"] == "running" and row["restarts"] == 0 for row in status["processes"])
    assert {row["pid"] for row in status["processes"]} <= alive()
    shown = [line.split()[:3] for line in cli.ok("status").out.splitlines()]
    assert all(any(name in words for words in shown) for name in PROCESSES)
    assert cli.json("whoami")["name"] == "admin"  # `up` logs its user in

    error = cli.refused("up", "--detach", "--listen", f"127.0.0.1:{plan.free_port()}")
    assert all(word in error for word in (str(cli.home), "`modelyard down`", "MODELYARD_HOME"))
    assert cli.json("status")["processes"][0]["pid"] == status["processes"][0]["pid"]

    assert suite.processes_of(home_of(cli))
    cli.ok("down")
    assert suite.processes_of(home_of(cli)) == []
    ended = cli.run("status")
    assert ended.code == 1
    assert "`modelyard up` starts it" in ended.out


def test_a_port_that_is_taken_is_named_with_the_way_out(cli: Cli, listen: str) -> None:
    host, _, port = listen.rpartition(":")
    with socket.create_server((host, int(port))):
        for detach in (["--detach"], []):
            error = Cli(cli.home, apart=True).run("up", *detach, "--listen", listen)
            assert error.code == 1
            assert f"{listen} is taken" in error.err
            assert "--listen" in error.err
            assert "Traceback" not in error.err
    assert suite.processes_of(home_of(cli)) == []
    assert cli.run("status", "--output", "json").json == {"running": False}


def test_a_service_that_does_not_start_says_why_and_takes_the_others_along(cli: Cli, listen: str) -> None:
    wrong = Cli(cli.home, apart=True, settings={"MODELYARD_BLOBS": "s3:bucket"})
    cli.ok("up", "--detach", "--listen", listen)
    cli.ok("down")
    for detach in (["--detach"], []):
        ended = wrong.run("up", *detach, "--listen", listen)
        assert ended.code == 1
        assert "artifact ended with status 1 while starting" in ended.err
        assert "name the bucket, s3://bucket/prefix" in " ".join(ended.err.split())
        assert "serving" not in ended.err  # what it said in its earlier life
        assert "Traceback" not in ended.err
        assert suite.processes_of(home_of(cli)) == []
    assert cli.run("status", "--output", "json").json == {"running": False}


def test_a_killed_process_is_started_again(cli: Cli, listen: str) -> None:
    cli.ok("up", "--detach", "--listen", listen)
    cli.ok("catalogs", "create", "kept")
    for name in ("catalog", "envoy", "postgres"):
        before = running(cli, name)
        os.kill(before.pid, signal.SIGKILL)
        wait_until(lambda name=name, before=before: running(cli, name) != before)  # type: ignore[misc]
        wait_until(lambda: cli.run("catalogs", "show", "kept").code == 0)
    rows = by_name(cli)
    assert {name for name, row in rows.items() if row["restarts"]} == {"catalog", "envoy", "postgres"}
    assert {row["state"] for row in rows.values()} == {"running"}
    cli.ok("down")
    assert suite.processes_of(home_of(cli)) == []


def test_what_a_killed_supervisor_leaves_behind_is_cleaned_up(cli: Cli, listen: str) -> None:
    cli.ok("up", "--detach", "--listen", listen)
    cli.ok("catalogs", "create", "kept")
    left = by_name(cli)
    os.kill(left["supervisor"]["pid"], signal.SIGKILL)
    wait_until(lambda: cli.run("status", "--output", "json").json == {"running": False})
    assert suite.processes_of(home_of(cli))  # the services go on, without anybody to watch them

    command = [str(PROGRAM), "up", "--listen", listen]
    with subprocess.Popen(
        command, env=cli.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as up:
        assert up.stdout is not None
        told = ""
        while "Ctrl-C stops everything" not in told:
            line = up.stdout.readline()
            assert line, told
            told += line
        now = by_name(cli)
        assert not {row["pid"] for row in left.values()} & {row["pid"] for row in now.values()}
        assert not {row["pid"] for row in left.values()} & alive()
        assert cli.json("catalogs", "show", "kept")["name"] == "kept"
        up.send_signal(signal.SIGINT)
        rest, _ = up.communicate(timeout=60)
    assert up.returncode == 0
    assert "stopped" in rest
    assert "Traceback" not in told + rest
    assert suite.processes_of(home_of(cli)) == []


def test_a_process_that_nobody_collects_has_ended() -> None:
    careless = (
        "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", careless], stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            process = psutil.Process(int(parent.stdout.readline()))
            left = Running(process.pid, process.create_time())
            assert is_alive(left)
            end_leftover(left)
            assert process.status() == psutil.STATUS_ZOMBIE
            assert not is_alive(left)
        finally:
            parent.kill()
