"""Ways to hand a message to a topic: publish it to an SNS, or post it to a webhook.

A sender blocks, so it is called in a thread; several threads may call it at once. botocore and urllib3 are imported
when the first message is sent: most servers never send one. No error text holds a message, a secret or the path of a
webhook's URL, which is often a secret too.
"""

import hashlib
import hmac
import os
import threading
import time
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from moorage.async_inference.base import Notice
from moorage.auth.credentials import read_root_key
from moorage.config import Settings

if TYPE_CHECKING:
    from urllib3 import PoolManager

_TIMEOUT_SECONDS = 10.0
_MOST_CONNECTIONS = 8


class NotDelivered(Exception):
    """A message did not reach its topic; the text says why."""


class Sender(Protocol):
    def send(self, notice: Notice) -> None:
        """Return when the message has been accepted.

        Raises:
            NotDelivered: it has not, or nobody knows.
        """


class SnsSender:
    """Publishes to the SNS at `endpoint`, in the region of a topic's ARN, which replaces REGION in the URL."""

    def __init__(
        self, *, endpoint: str, access_key_id: str, secret_access_key: str, session_token: str | None = None
    ) -> None:
        self._endpoint = endpoint
        self._access_key_id = access_key_id
        self._secret_access_key = secret_access_key
        self._session_token = session_token
        self._clients: dict[str, Any] = {}
        self._making_client = threading.Lock()

    def send(self, notice: Notice) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        region = notice.topic_arn.split(":")[3]
        try:
            self._client(region).publish(TopicArn=notice.topic_arn, Message=notice.message)
        except ClientError as error:
            about = error.response.get("Error", {})
            raise NotDelivered(f"SNS answered {about.get('Code')}: {about.get('Message')}") from error
        except (BotoCoreError, ValueError) as error:
            raise NotDelivered(f"SNS cannot be used: {error}") from error

    def _client(self, region: str) -> Any:
        with self._making_client:  # making one is not safe in threads; using one is
            if region not in self._clients:
                self._clients[region] = self._make_client(region)
            return self._clients[region]

    def _make_client(self, region: str) -> Any:
        from botocore.config import Config
        from botocore.session import Session

        return Session().create_client(
            "sns",
            region_name=region,
            endpoint_url=self._endpoint.replace("REGION", region),
            aws_access_key_id=self._access_key_id,
            aws_secret_access_key=self._secret_access_key,
            aws_session_token=self._session_token,
            config=Config(
                connect_timeout=_TIMEOUT_SECONDS,
                read_timeout=_TIMEOUT_SECONDS,
                retries={"total_max_attempts": 1},  # whoever calls tries again
                max_pool_connections=_MOST_CONNECTIONS,
            ),
        )


class WebhookSender:
    """Posts messages to a URL, signed when there is a secret. Any 2xx means delivered; redirects are not followed."""

    def __init__(self, *, url: str, secret: str = "") -> None:
        self._url = url
        self._host = urlsplit(url).hostname
        self._secret = secret
        self._made_pool: PoolManager | None = None

    def send(self, notice: Notice) -> None:
        from urllib3.exceptions import HTTPError

        body = notice.message.encode()
        headers = {"Content-Type": "application/json", "X-Moorage-Topic-Arn": notice.topic_arn}
        if self._secret:
            headers["X-Moorage-Signature"] = signature(self._secret, body, at=int(time.time()))
        try:
            reply = self._pool().request(
                "POST", self._url, body=body, headers=headers, retries=False, preload_content=False
            )
        except HTTPError as error:
            reason = str(error).replace(self._url, "its URL")
            raise NotDelivered(f"the webhook at {self._host} cannot be reached: {reason}") from error
        reply.close()  # its body, which may be endless, says nothing to us
        if not 200 <= reply.status < 300:
            raise NotDelivered(f"the webhook at {self._host} answered {reply.status}")

    def _pool(self) -> "PoolManager":
        if self._made_pool is None:
            from urllib3 import PoolManager, Timeout

            self._made_pool = PoolManager(timeout=Timeout(total=_TIMEOUT_SECONDS))
        return self._made_pool


class TopicSender:
    """Sends by the topic: to the webhook whose glob matches its ARN (the longest, if several do), else to SNS."""

    def __init__(self, *, webhooks: Mapping[str, Sender], sns: Sender | None) -> None:
        self._webhooks = webhooks
        self._sns = sns

    def send(self, notice: Notice) -> None:
        matching = [glob for glob in self._webhooks if fnmatchcase(notice.topic_arn, glob)]
        if matching:
            self._webhooks[max(matching, key=lambda glob: (len(glob), glob))].send(notice)
        elif self._sns is not None:
            self._sns.send(notice)
        else:
            raise NotDelivered(
                "no SNS endpoint is set: set `sns_endpoint`, or map the topic to a URL in `webhooks`"
            )


def signature(secret: str, body: bytes, *, at: int) -> str:
    """The value of X-Moorage-Signature for a body sent at that Unix time."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def create_sender(settings: Settings, environment: Mapping[str, str] = os.environ) -> TopicSender:
    """The sender that the settings describe.

    SNS gets the key in the environment's AWS_* variables; where there is none, the server's own root key.
    """
    webhooks = {
        glob: WebhookSender(url=url, secret=settings.webhook_secret)
        for glob, url in settings.webhooks.items()
    }
    return TopicSender(webhooks=webhooks, sns=_sns_sender(settings, environment))


def _sns_sender(settings: Settings, environment: Mapping[str, str]) -> SnsSender | None:
    if not settings.sns_endpoint:
        return None
    key_id, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if key_id and secret:
        return SnsSender(
            endpoint=settings.sns_endpoint,
            access_key_id=key_id,
            secret_access_key=secret,
            session_token=environment.get("AWS_SESSION_TOKEN"),
        )
    key = read_root_key(settings.credentials_file, account_id=settings.account_id)
    return SnsSender(
        endpoint=settings.sns_endpoint,
        access_key_id=key.access_key_id,
        secret_access_key=key.secret_access_key,
    )
