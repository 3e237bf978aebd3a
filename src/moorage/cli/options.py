"""What the commands have in common: options, and the settings that come of them."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from moorage.config import Settings, load

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Directory of all state.", show_default="./moorage-data"),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="Settings file.", show_default="./moorage.toml if it exists"),
]
User = Annotated[str | None, typer.Option("--user", help="The user's name.")]
Role = Annotated[str | None, typer.Option("--role", help="The role's name.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


def read_settings(config: Path | None, **overrides: Any) -> Settings:
    """Settings from the file, the environment and the command line.

    Raises:
        SettingsError: one of them is wrong.
    """
    if config is None and Path("moorage.toml").is_file():
        config = Path("moorage.toml")
    return load(file=config, environment=os.environ, overrides=overrides)
