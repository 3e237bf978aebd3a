"""Calls an `answer` of a Query service as botocore would: its serializer, its parser, its errors."""

from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol
from urllib.parse import urlencode

from botocore.exceptions import ClientError
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import QueryParser
from botocore.serialize import QuerySerializer

from moorage.controller.permissions import Requester
from moorage.controller.query import Reply


class Api(Protocol):
    async def answer(self, body: bytes, requester: Requester, request_id: str) -> Reply: ...


@cache
def model(service: str) -> ServiceModel:
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


@dataclass
class QueryClient:
    service: str
    api: Api
    requester: Requester

    async def call(self, operation_name: str, **members: Any) -> Any:
        operation = model(self.service).operation_model(operation_name)
        body = QuerySerializer().serialize_to_request(members, operation)["body"]
        status, content_type, reply = await self.api.answer(
            urlencode(body).encode(), self.requester, "request-1"
        )
        assert content_type == "text/xml"
        response = {"body": reply, "headers": {}, "status_code": status}
        parsed = QueryParser().parse(response, operation.output_shape)
        assert parsed.pop("ResponseMetadata")["RequestId"] == "request-1"
        if status >= 300:
            raise ClientError({**parsed, "ResponseMetadata": {"HTTPStatusCode": status}}, operation_name)
        return parsed


def code(error: ClientError) -> tuple[str, int]:
    return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
