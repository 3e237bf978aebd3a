"""STS: the one action that SDKs call, GetCallerIdentity. The protocol is AWS Query: form in, XML out."""

from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from moorage.errors import ControlPlaneError

CONTENT_TYPE = "text/xml"
_NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"


class InvalidAction(ControlPlaneError):
    code = "InvalidAction"


def answer(body: bytes, *, account_id: str, principal_arn: str, user_id: str, request_id: str) -> bytes:
    """The reply to an action.

    Raises:
        InvalidAction: it is not GetCallerIdentity.
    """
    form = parse_qs(body.decode("utf-8", "replace"))
    action = form.get("Action", [""])[0]
    if action != "GetCallerIdentity":
        version = form.get("Version", [""])[0]
        raise InvalidAction(f"Could not find operation {action} for version {version}")
    return (
        f'<GetCallerIdentityResponse xmlns="{_NAMESPACE}"><GetCallerIdentityResult>'
        f"<Arn>{escape(principal_arn)}</Arn><UserId>{escape(user_id)}</UserId>"
        f"<Account>{escape(account_id)}</Account></GetCallerIdentityResult>"
        f"<ResponseMetadata><RequestId>{escape(request_id)}</RequestId></ResponseMetadata>"
        "</GetCallerIdentityResponse>"
    ).encode()
