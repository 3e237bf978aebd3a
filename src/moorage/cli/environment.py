"""`moorage env`: lines for `eval`."""

import shlex

from moorage.auth.credentials import read_root_key
from moorage.cli.client import NoServer, complain, server_url
from moorage.config import Settings


def print_exports(settings: Settings) -> int:
    try:
        url = server_url(settings, public=True)
    except NoServer as error:
        complain(str(error))
        return 1
    key = read_root_key(settings.credentials_file, account_id=settings.account_id)
    print(exports(settings, url, settings.region, key.access_key_id, key.secret_access_key))
    return 0


def exports(settings: Settings, url: str, region: str, access_key_id: str, secret_access_key: str) -> str:
    """What makes the aws CLI and every SDK call the server at `url` with this key."""
    variables = {
        "AWS_ENDPOINT_URL": url,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_ACCESS_KEY_ID": access_key_id,
        "AWS_SECRET_ACCESS_KEY": secret_access_key,
    }
    if settings.s3_endpoint:
        variables["AWS_ENDPOINT_URL_S3"] = settings.s3_endpoint
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join((*lines, "unset AWS_SESSION_TOKEN AWS_PROFILE"))
