"""Alembic migrations of the catalog's database."""
