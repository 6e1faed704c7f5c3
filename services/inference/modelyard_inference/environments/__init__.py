"""Python environments of replicas: built once for each lock, shared by all that ask for the same; see docs/adr/0009.

    <folder>/<key>/               an environment, named by the SHA-256 of its lock and its Python
             .wishes/<wish>       the key of the environment that a wish led to; with it no index is asked again
             .uses/<use>.<key>    an artifact, or one under a deployment that chose for itself, whose replicas run in an environment
             .partial-*           what is being built

An environment gets its name by an atomic rename when all of it is there, so what has the name is whole. Only the build may reach an
index, as uv's own settings and environment variables say; a replica that starts in an environment downloads nothing.
"""

from __future__ import annotations


class EnvironmentFailed(Exception):
    """An environment cannot be had; the message says why, with the end of uv's output, and what to do."""
