"""What the conditions of policies may ask of a request that came to the gateway."""

from datetime import UTC, datetime

from moorage.auth.policy import Context
from moorage.auth.request_context import global_context
from moorage.gateway.request import Request
from moorage.wire import header_text

_TARGET_MODEL = b"x-amzn-sagemaker-target-model"


def of_request(request: Request, *, region: str) -> Context:
    """The global condition keys, and those of SageMaker's runtime."""
    context = global_context(
        source_ip=request.client_address,
        secure=request.protected,
        now=datetime.now(UTC),
        region=region,
        user_agent=_header(request, b"user-agent"),
        referer=_header(request, b"referer"),
    )
    target_model = _header(request, _TARGET_MODEL)
    if target_model is not None:
        context["sagemaker:TargetModel"] = target_model
    return context


def _header(request: Request, name: bytes) -> str | None:
    value = request.headers.get(name)
    return None if value is None else header_text.decode(value)
