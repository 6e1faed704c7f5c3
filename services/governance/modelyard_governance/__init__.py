"""Governance: who may do what, who approved what, and a record nobody can quietly change."""
