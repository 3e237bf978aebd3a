"""The `ModelError`s of an invocation, in the words the real service uses (captured replies)."""

from dataclasses import dataclass

from moorage.errors import ModelError

_LONGEST = 2048
"""The model's limit for `Message` and `OriginalMessage`, in characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Which container of which endpoint an error comes from."""

    account_id: str
    region: str
    endpoint_name: str
    container_hostname: str

    @property
    def log_group(self) -> str:
        return f"/aws/sagemaker/Endpoints/{self.endpoint_name}"

    @property
    def log_stream_arn(self) -> str:
        return f"arn:aws:logs:{self.region}:{self.account_id}:log-group:{self.log_group}"

    @property
    def see(self) -> str:
        """Where to look. The real service links its console; here the same log is one command away."""
        return (
            f"See `moorage logs {self.endpoint_name}` (log group {self.log_group}) "
            f"in account {self.account_id} for more information."
        )


def answered(origin: Origin, status: int, body: bytes) -> ModelError:
    """The container answered with an error status. A body that is no UTF-8 is kept with replacements."""
    fault, code = (
        ("client", "CLIENT_ERROR_FROM_MODEL") if status < 500 else ("server", "INTERNAL_FAILURE_FROM_MODEL")
    )
    text = body[: 4 * _LONGEST].decode("utf-8", "replace")[:_LONGEST]
    received = f"Received {fault} error ({status}) from {origin.container_hostname}"
    # The tail tells where to look, so it is the container's text that gives way.
    room = _LONGEST - len(received) - len(origin.see) - len(' with message "". ')
    return _error(origin, code, f'{received} with message "{text[:room]}". {origin.see}', text, status)


def timed_out(origin: Origin) -> ModelError:
    """The container took too long."""
    text = (
        f"Your invocation timed out while waiting for a response from container "
        f"{origin.container_hostname}. Review the latency metrics for each container in Amazon CloudWatch, "
        f"resolve the issue, and try again."
    )
    return _no_answer(origin, origin.container_hostname, text)


def no_response(origin: Origin, reason: str) -> ModelError:
    """The container died, or its connection broke, before an answer came. `reason`: what was observed."""
    text = (
        f"Amazon SageMaker could not get a response from the {origin.endpoint_name} endpoint. This can occur "
        f"when CPU or memory utilization is high. To check your utilization, see Amazon CloudWatch. To fix "
        f"this problem, use an instance type with more CPU capacity or memory."
    )
    return _no_answer(origin, "model", text, f" ({origin.container_hostname}: {reason})")


def body_not_loaded(origin: Origin, status: int, reason: str) -> ModelError:
    """The answer began but could not be read to its end, or is larger than the limit."""
    message = (
        f"Received server error ({status}) from {origin.container_hostname} and could not load the entire "
        f"response body. {origin.see}"
    )
    return _error(origin, "INTERNAL_FAILURE_FROM_MODEL", message, reason, status)


def _no_answer(origin: Origin, source: str, text: str, detail: str = "") -> ModelError:
    message = f'Received server error (0) from {source} with message "{text}"{detail}. {origin.see}'
    return _error(origin, "INTERNAL_FAILURE_FROM_MODEL", message, text, 0)


def _error(origin: Origin, code: str, message: str, original: str, status: int) -> ModelError:
    return ModelError(
        message,
        ErrorCode=code,
        LogStreamArn=origin.log_stream_arn,
        OriginalMessage=original,
        OriginalStatusCode=status,
    )
