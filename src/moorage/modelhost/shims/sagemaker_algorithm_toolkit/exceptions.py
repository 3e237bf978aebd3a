"""Errors of algorithms."""


class BaseToolkitError(Exception):
    def __init__(self, message: str | None = None, caused_by: BaseException | None = None) -> None:
        self.message = message or "unknown error occurred"
        self.caused_by = caused_by
        text = self.message if caused_by is None else f"{self.message} (caused by {type(caused_by).__name__})"
        super().__init__(text)


class AlgorithmError(BaseToolkitError):
    """Of the algorithm itself."""


class UserError(BaseToolkitError):
    """Of what the user gave."""


class PlatformError(BaseToolkitError):
    """Of the platform."""
