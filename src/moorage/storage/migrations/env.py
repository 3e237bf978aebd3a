"""Alembic's entry. The connection, its transaction and the lock are those of `moorage.storage.database`."""

from alembic import context

from moorage.storage.schema import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
