"""Headers that sign a request, as boto3 would; good for five minutes, so one signature serves a whole run of wrk."""

from collections.abc import Mapping

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from bare_gateway import KEY
from moorage.auth.credentials import AccessKey

JSON = {"Content-Type": "application/json"}


def signed(
    url: str,
    body: str | bytes,
    headers: Mapping[str, str] = JSON,
    *,
    key: AccessKey = KEY,
    method: str = "POST",
) -> dict[str, str]:
    request = AWSRequest(method, url, headers=dict(headers), data=body)
    credentials = Credentials(key.access_key_id, key.secret_access_key)
    SigV4Auth(credentials, "sagemaker", "us-east-1").add_auth(request)
    return dict(request.headers.items())


def signed_request(port: int, path: str, body: str, headers: Mapping[str, str] = JSON) -> bytes:
    """The whole request, as it goes over the connection."""
    lines = {"Host": f"127.0.0.1:{port}", "Content-Length": str(len(body))}
    lines |= signed(f"http://127.0.0.1:{port}{path}", body, headers)
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n{body}".encode()
