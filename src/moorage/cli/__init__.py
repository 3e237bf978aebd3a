"""The command line: arguments → settings → run. The only part that prints or exits."""

from moorage.cli.main import main

__all__ = ["main"]
