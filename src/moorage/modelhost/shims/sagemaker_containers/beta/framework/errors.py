"""Errors of scripts."""


class ClientError(Exception):
    """The script, or what it is given, is wrong."""


class UnsupportedFormatError(Exception):
    def __init__(self, content_type: str | None, **kwargs: object) -> None:
        self.message = f"Content type {content_type} is not supported by this framework."
        super().__init__(self.message)


class ImportModuleError(ClientError):
    """The script cannot be imported."""
