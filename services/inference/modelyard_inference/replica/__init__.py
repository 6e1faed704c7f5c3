"""The model server: one process that runs one version of one model for one deployment."""
