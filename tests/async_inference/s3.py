"""An S3 of a test's own, that can be stopped and started again."""

from collections.abc import Mapping

from moorage.storage.objects import (
    Acting,
    Authority,
    Credentials,
    ObjectAccessDenied,
    Objects,
    ObjectStore,
    Principal,
)
from tests.s3.by_tcp import KEY, OtherS3


class AnyRole:
    """An authority that has the S3's keys, and refuses what it is told to refuse."""

    key = ""
    is_role = False

    def __init__(self, *refused: str) -> None:
        self._refused = refused

    async def acting(self, principal: Principal) -> Acting:
        return self

    async def credentials(self) -> Credentials:
        return Credentials(
            access_key_id=KEY["AWS_ACCESS_KEY_ID"], secret_access_key=KEY["AWS_SECRET_ACCESS_KEY"]
        )

    def authorize(self, action: str, resource: str, context: Mapping[str, str]) -> None:
        if action in self._refused:
            raise ObjectAccessDenied(f"{action} on {resource} is refused")


class LocalS3(OtherS3):
    def objects(self, authority: Authority | None = None) -> Objects:
        return Objects(endpoint=self.url, region="us-east-1", authority=authority or AnyRole())

    def store(self) -> ObjectStore:
        return self.objects().acting_as("000000000000", None, source_arn="arn:aws:sagemaker:::model/m")
