"""How large a replica is."""

from __future__ import annotations

import pytest

from modelyard_inference.resources import Resources


@pytest.mark.parametrize(
    ("resources", "copies", "threads"),
    [
        (Resources(), 1, 1),
        (Resources(cpus=3), 6, 1),
        (Resources(cpus=4, instances=1), 1, 4),
        (Resources(cpus=4, instances=3), 3, 1),
        (Resources(instances=5), 5, 1),
    ],
)
def test_copies_share_the_cores(resources: Resources, copies: int, threads: int) -> None:
    assert (resources.copies(code=False), resources.threads(code=False)) == (copies, threads)


def test_a_program_of_the_artifact_has_one_copy_and_every_core() -> None:
    resources = Resources(cpus=4, instances=8)
    assert (resources.copies(code=True), resources.threads(code=True)) == (1, 4)
