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
    variables = {
        "AWS_ENDPOINT_URL": url,
        "AWS_REGION": settings.region,
        "AWS_DEFAULT_REGION": settings.region,
        "AWS_ACCESS_KEY_ID": key.access_key_id,
        "AWS_SECRET_ACCESS_KEY": key.secret_access_key,
    }
    if settings.s3_endpoint:
        variables["AWS_ENDPOINT_URL_S3"] = settings.s3_endpoint
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")
    print("unset AWS_SESSION_TOKEN AWS_PROFILE")
    return 0
