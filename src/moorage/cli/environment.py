"""`moorage env`: lines for `eval`."""

import os
import shlex
from pathlib import Path

from moorage.auth.credentials import read_root_key
from moorage.cli import certificates
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


def authority_file(settings: Settings, url: str) -> str:
    """What SDKs have to be given to accept the certificate of the server at `url`: the path of a PEM file; empty if
    they need nothing, or if it is not known, since the server does not run on the data directory."""
    try:
        is_here = server_url(settings, public=True) == url
        chain = settings.shown_certificate_file.read_text().strip() if is_here else ""
    except (NoServer, FileNotFoundError):
        return ""
    if not chain:
        return ""
    try:
        if certificates.is_public(Path(chain)):
            return ""
        is_root = certificates.is_root(Path(chain))
    except (OSError, ValueError) as error:
        complain(f"the server's certificate {chain} cannot be read: {error}")
        return ""
    if not is_root and not os.environ.get("AWS_CA_BUNDLE"):
        complain(
            f"the server's certificate {chain} is from an authority that SDKs do not know, and which is not in that "
            "file. Set AWS_CA_BUNDLE to the PEM file of the authority's own certificate, or append that to the chain."
        )
    return chain if is_root else ""


def exports(settings: Settings, url: str, region: str, access_key_id: str, secret_access_key: str) -> str:
    """What makes the aws CLI and every SDK call the server at `url` with this key."""
    variables = {
        "AWS_ENDPOINT_URL": url,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_ACCESS_KEY_ID": access_key_id,
        "AWS_SECRET_ACCESS_KEY": secret_access_key,
    }
    if authority := authority_file(settings, url):
        variables["AWS_CA_BUNDLE"] = authority
        variables["NODE_EXTRA_CA_CERTS"] = authority
    if settings.s3_endpoint:
        variables["AWS_ENDPOINT_URL_S3"] = settings.s3_endpoint
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join((*lines, "unset AWS_SESSION_TOKEN AWS_PROFILE"))
