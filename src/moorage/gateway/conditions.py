"""What the conditions of policies may ask of a request that came to the gateway."""

from datetime import UTC, datetime

from moorage.auth.policy import Context
from moorage.gateway.request import Request
from moorage.wire import header_text

_TARGET_MODEL = b"x-amzn-sagemaker-target-model"


def of_request(request: Request, *, region: str) -> Context:
    """The global condition keys that make sense here, and those of SageMaker's runtime."""
    now = datetime.now(UTC)
    context = {
        "aws:SourceIp": request.client_address,
        "aws:SecureTransport": "true" if request.secure else "false",
        "aws:CurrentTime": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "aws:EpochTime": str(int(now.timestamp())),
        "aws:RequestedRegion": region,
    }
    for key, header in (("aws:UserAgent", b"user-agent"), ("sagemaker:TargetModel", _TARGET_MODEL)):
        value = request.headers.get(header)
        if value is not None:
            context[key] = header_text.decode(value)
    return context
