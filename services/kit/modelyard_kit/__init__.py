"""The chassis that every Modelyard service stands on."""

PREFIX = "MODELYARD_"
"""Of the environment variables that are settings. Here, where nothing else has to be loaded to know it."""
