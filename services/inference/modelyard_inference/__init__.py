"""Inference service: deployments, the reconciler that makes them true, and the model-server replicas."""
