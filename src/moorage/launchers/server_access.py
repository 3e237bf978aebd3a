"""What a container is told of this server: where it is, and where the credentials of its execution role are had.

The SDKs of AWS find both by themselves. Credentials are had as on AWS: where a container has a network of its own at
169.254.170.2, by a path (`AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`); on the machine's network, where that address is
nobody's, by a whole URL (`AWS_CONTAINER_CREDENTIALS_FULL_URI`), of which SDKs believe loopback addresses only. The
path is a secret of the instance.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from moorage.config import CONTAINER_CREDENTIALS_PATH
from moorage.launchers.base import InstanceSpec
from moorage.outbound.policy import CREDENTIALS_ADDRESS


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAccess:
    """`url` is the server's as containers reach it. `credentials_url` is that for credentials on the machine's
    network; empty: containers have networks of their own."""

    url: str
    credentials_url: str = ""

    @property
    def hosts(self) -> tuple[str, ...]:
        """What is not to be called by way of a proxy."""
        return urlsplit(self.url).hostname or "", CREDENTIALS_ADDRESS

    def environment(self, spec: InstanceSpec) -> Mapping[str, str]:
        """Nothing for a container that may call nobody."""
        if spec.network_isolation or not spec.credentials_secret:
            return {}
        path = f"{CONTAINER_CREDENTIALS_PATH}{spec.instance_id}/{spec.credentials_secret}"
        if self.credentials_url:
            where = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{self.credentials_url}{path}"}
        else:
            where = {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": path}
        return {"AWS_ENDPOINT_URL": self.url, **where}
