"""The chassis that every Modelyard service stands on."""

import os

# The child of a fork (uvloop's way to start a program) would run handlers of gRPC's before it becomes that program, and one in
# thirty crashed in them while calls were answered. No child of ours uses gRPC. Here, because gRPC asks when it is first imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

PREFIX = "MODELYARD_"
"""Of the environment variables that are settings. Here, where nothing else has to be loaded to know it."""
