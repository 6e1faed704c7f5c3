"""A load of predictions that runs while something is changed, and counts what it sees."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

# Between two calls of one caller: a steady load, that leaves the machine room to start new replicas.
PAUSE_SECONDS = 0.005


@dataclass
class Load:
    """What a load has seen: answers by version in the order they came, and the errors."""

    versions: list[int] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)

    def count(self, version: int) -> int:
        """Return how many answers came from a version."""
        with self._lock:
            return self.versions.count(version)

    def wait_for(self, version: int, answers: int, *, timeout: float = 60.0) -> None:
        """Wait until a version has given so many answers.

        Raises:
            TimeoutError: it did not within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while self.count(version) < answers:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"version {version} gave {self.count(version)} of {answers} answers in {timeout:.0f} s"
                )
            time.sleep(0.05)

    def _run(self, predict: Callable[[], int]) -> None:
        while not self._stop.is_set():
            try:
                version = predict()
            except Exception as error:  # noqa: BLE001 - every failure counts, whatever it is
                self.errors.append(error)
                continue
            with self._lock:
                self.versions.append(version)
            self._stop.wait(PAUSE_SECONDS)

    @classmethod
    @contextmanager
    def running(cls, predict: Callable[[], int], *, callers: int = 4) -> Iterator[Load]:
        """Run `callers` threads that call `predict`, which returns the version that answered, within this block."""
        load = cls()
        threads = [threading.Thread(target=load._run, args=(predict,)) for _ in range(callers)]
        for thread in threads:
            thread.start()
        try:
            yield load
        finally:
            load._stop.set()
            for thread in threads:
                thread.join()
