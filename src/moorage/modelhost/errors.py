"""The two ways in which things go wrong that are not our bugs."""


class StartupError(Exception):
    """The host cannot serve this model. `sentence` says what to do, `detail` (a traceback, pip's words) why."""

    def __init__(self, sentence: str, *, detail: str = "") -> None:
        super().__init__(sentence)
        # It is promised to be the last line on stderr, so it must be one line.
        self.sentence = " ".join(sentence.split())
        self.detail = detail


class InvocationError(Exception):
    """An answer other than 200 that is not the fault of user code."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
