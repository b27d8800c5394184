"""The history of the tables: one alembic revision per change, expand first, contract a release later."""
