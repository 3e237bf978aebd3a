"""The catalogue of errors that reach a client: one class per AWS error.

A `ServiceError` is a value to be rendered by `moorage.wire.faults`; nothing here knows about HTTP beyond
the status. Anything raised that is not a `ServiceError` is a bug of ours and is answered as `InternalFailure`.

Names and statuses: the service models in botocore (`sagemaker-runtime`, `sagemaker`), and for the front
layer's errors the page "Common errors" of the SageMaker API reference.
"""

from typing import ClassVar, Literal

OUR_FAULT = "An internal failure occurred. The server's log has the details."


class ServiceError(Exception):
    """An error in AWS's shape: a code, an HTTP status, a message, and members the model gives it.

    `message_key` is the JSON key of the message: the operations of the runtime service spell it `Message`,
    the front layer (authentication, throttling) and the control plane `message`.
    """

    code: str = "InternalFailure"
    status: int = 500
    message_key: ClassVar[str] = "Message"

    def __init__(self, message: str, **members: object) -> None:
        super().__init__(message)
        self.message = message
        self.members = members


class S3Error(ServiceError):
    """A refusal that only S3 knows. `members` are elements of its XML beside the code and the message."""

    def __init__(self, code: str, status: int, message: str, **members: object) -> None:
        super().__init__(message, **members)
        self.code = code
        self.status = status


Fault = Literal[
    "",
    "both_forms",
    "missing",
    "missing_v2",
    "component",
    "date",
    "not_fresh",
    "not_yet",
    "expired",
    "expires_number",
    "expires_negative",
    "expires_large",
    "expires_epoch",
    "headers_not_signed",
    "algorithm",
    "credential_form",
    "credential_terminator",
    "credential_region",
    "credential_date",
    "unknown_key",
    "token",
    "token_expired",
    "payload_hash_form",
    "payload_hash",
    "signature",
]
"""What is wrong with a signature, for the protocol that has words of its own for it: S3's."""


class FrontLayerError(ServiceError):
    """Refused before any operation ran. `details` are what S3's words for the `fault` name."""

    status = 403
    message_key = "message"

    def __init__(self, message: str, *, fault: Fault = "", **details: object) -> None:
        super().__init__(message)
        self.fault: Fault = fault
        self.details = details


# --- Operations of the runtime service -----------------------------------------------------------------


class InvocationError(ServiceError):
    """An error of an invocation. Its reply has a member `ErrorCode`, which real replies have and the model does not:
    the one among `members`, else `error_code`. Captured from AWS are TARGET_MODEL_HEADER_NOT_SUPPORTED,
    INFERENCE_COMPONENT_NAME_MISSING, CLIENT_ERROR_FROM_MODEL and INTERNAL_FAILURE_FROM_MODEL; the others are ours."""

    error_code: ClassVar[str]


class ValidationError(InvocationError):
    """The request breaks a rule of the operation."""

    code = "ValidationError"
    status = 400
    error_code = "VALIDATION_FAILED"


class ModelError(InvocationError):
    """The model container answered 4xx or 5xx, too late, or not at all (`OriginalStatusCode` 0)."""

    code = "ModelError"
    status = 424
    error_code = "INTERNAL_FAILURE_FROM_MODEL"


class ModelNotReadyException(InvocationError):
    """The resources behind the variant, or the target model, are still being made ready."""

    code = "ModelNotReadyException"
    status = 429
    error_code = "MODEL_NOT_READY"


class InternalFailure(InvocationError):
    """A fault of ours."""

    code = "InternalFailure"
    status = 500
    error_code = "INTERNAL_FAILURE"


class ServiceUnavailable(InvocationError):
    """No instance can take the invocation now; another try may succeed."""

    code = "ServiceUnavailable"
    status = 503
    error_code = "SERVICE_UNAVAILABLE"


class InternalDependencyException(InvocationError):
    """Something this service itself depends on cannot be reached."""

    code = "InternalDependencyException"
    status = 530
    error_code = "INTERNAL_DEPENDENCY_FAILED"


# --- The control plane ---------------------------------------------------------------------------------


class ControlPlaneError(ServiceError):
    status = 400
    message_key = "message"


class ValidationException(ControlPlaneError):
    """The request breaks a rule, or names a resource that is not there."""

    code = "ValidationException"


class SerializationException(ControlPlaneError):
    """The body is not JSON, or a member has the wrong JSON type."""

    code = "SerializationException"


class ResourceLimitExceeded(ControlPlaneError):
    code = "ResourceLimitExceeded"
    message_key = "Message"


class ResourceInUse(ControlPlaneError):
    code = "ResourceInUse"
    message_key = "Message"


class ResourceNotFound(ControlPlaneError):
    code = "ResourceNotFound"
    message_key = "Message"


class UnknownOperationException(ControlPlaneError):
    """The operation is not one of the service, or one that this server does not have."""

    code = "UnknownOperationException"


# --- CloudWatch Logs -----------------------------------------------------------------------------------


class InvalidParameterException(ControlPlaneError):
    code = "InvalidParameterException"


class LogGroupNotFound(ControlPlaneError):
    """The log group, or a stream of it, is not there."""

    code = "ResourceNotFoundException"


# --- IAM and STS ---------------------------------------------------------------------------------------


class NoSuchEntity(ControlPlaneError):
    code = "NoSuchEntity"
    status = 404


class EntityAlreadyExists(ControlPlaneError):
    code = "EntityAlreadyExists"
    status = 409


class DeleteConflict(ControlPlaneError):
    """Something still belongs to what is to be deleted."""

    code = "DeleteConflict"
    status = 409


class LimitExceeded(ControlPlaneError):
    code = "LimitExceeded"
    status = 409


class MalformedPolicyDocument(ControlPlaneError):
    code = "MalformedPolicyDocument"


class PackedPolicyTooLarge(ControlPlaneError):
    """The policies and tags of a session do not fit into its token."""

    code = "PackedPolicyTooLarge"


class InvalidInput(ControlPlaneError):
    code = "InvalidInput"


class InvalidAction(ControlPlaneError):
    """The service has no such operation, or this server does not have it."""

    code = "InvalidAction"


# --- The front layer: HTTP and authentication ----------------------------------------------------------


class MissingAuthenticationTokenException(FrontLayerError):
    code = "MissingAuthenticationTokenException"


class UnsignedActionNotSupported(FrontLayerError):
    """An operation that needs no signature, and that this server does not have."""

    code = "InvalidAction"
    status = 400


class IncompleteSignatureException(FrontLayerError):
    code = "IncompleteSignatureException"


class InvalidSignatureException(FrontLayerError):
    code = "InvalidSignatureException"


class UnrecognizedClientException(FrontLayerError):
    code = "UnrecognizedClientException"


class ExpiredTokenException(FrontLayerError):
    code = "ExpiredTokenException"


class AccessDeniedException(FrontLayerError):
    code = "AccessDeniedException"


class NotImplementedException(FrontLayerError):
    code = "NotImplemented"
    status = 501


class ThrottlingException(FrontLayerError):
    code = "ThrottlingException"
    status = 400


class MalformedHttpRequestException(FrontLayerError):
    code = "MalformedHttpRequestException"
    status = 400


class RequestTimeoutException(FrontLayerError):
    code = "RequestTimeoutException"
    status = 408


class RequestEntityTooLargeException(FrontLayerError):
    code = "RequestEntityTooLargeException"
    status = 413
