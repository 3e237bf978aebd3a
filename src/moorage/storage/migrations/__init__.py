"""The steps from an empty database to the present schema, for Alembic."""

HEAD = "0007"
"""The newest revision in `versions/`. A test compares: Alembic is only imported when a database is not there yet."""
