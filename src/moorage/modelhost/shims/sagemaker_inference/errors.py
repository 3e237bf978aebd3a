"""Errors that a script may raise to choose the status of a reply."""


class BaseInferenceToolkitError(Exception):
    def __init__(self, status_code: int, message: str, phrase: str) -> None:
        super().__init__(status_code, message, phrase)
        self.status_code = status_code
        self.message = message
        self.phrase = phrase

    def __str__(self) -> str:
        return self.message


class UnsupportedFormatError(Exception):
    def __init__(self, content_type: str | None) -> None:
        self.message = (
            f"Content type {content_type} is not supported by this framework. Please implement input_fn to "
            "deserialize the request data, or output_fn to serialize the response."
        )
        super().__init__(self.message)


class GenericInferenceToolkitError(BaseInferenceToolkitError):
    def __init__(self, status_code: int, message: str | None = None, phrase: str | None = None) -> None:
        super().__init__(status_code, message or "Invalid Request", phrase or message or "Invalid Request")


class ModelLoadError(BaseInferenceToolkitError):
    """The model cannot be loaded."""
