"""AddTags, ListTags, DeleteTags, on models, endpoint configs and endpoints."""

import re

from moorage.controller.operations import base
from moorage.controller.operations.base import Call, Params
from moorage.errors import ValidationException
from moorage.resources import Endpoint, EndpointConfig, Model
from moorage.storage import page_token
from moorage.storage.base import Tags

_KINDS = {"model": Model, "endpoint-config": EndpointConfig, "endpoint": Endpoint}
_ARN = re.compile(
    r"arn:aws:sagemaker:(?P<region>[^:]*):(?P<account_id>\d+):(?P<kind>[a-z-]+)/(?P<name>.+)", re.DOTALL
)


async def add_tags(call: Call, params: Params) -> Params:
    arn = _taggable_arn(call, params["ResourceArn"])
    added = base.tags_of(params)

    def add(present: Tags) -> Tags:
        tags = {**present, **added}
        if len(tags) > base.MOST_TAGS:
            raise ValidationException(
                f'Resource "{arn}" would have {len(tags)} tags; it can have at most {base.MOST_TAGS}.'
            )
        return tags

    return {"Tags": _tag_list(_present(arn, await call.store.update_tags(arn, add)))}


async def list_tags(call: Call, params: Params) -> Params:
    """All tags at once: a resource has at most 50, which is also the smallest page that can be asked for."""
    arn = _taggable_arn(call, params["ResourceArn"])
    if "NextToken" in params:
        raise page_token.invalid()
    return {"Tags": _tag_list(_present(arn, await call.store.get_tags(arn)))}


async def delete_tags(call: Call, params: Params) -> Params:
    arn = _taggable_arn(call, params["ResourceArn"])
    keys = set(params["TagKeys"])

    def remove(present: Tags) -> Tags:
        return {key: value for key, value in present.items() if key not in keys}

    _present(arn, await call.store.update_tags(arn, remove))
    return {}


def _taggable_arn(call: Call, arn: str) -> str:
    """The ARN in the case in which it is stored.

    Raises:
        ValidationException: it names nothing of this account and region that can have tags here.
    """
    parts = _ARN.fullmatch(arn)
    if parts is None or parts["kind"] not in _KINDS:
        raise ValidationException(f'Could not find resource "{arn}".')
    kind = _KINDS[parts["kind"]]
    if (parts["region"], parts["account_id"]) != (call.region, call.account_id):
        raise base.not_found(kind, arn)
    return call.arn(kind, parts["name"])


def _present(arn: str, tags: Tags | None) -> Tags:
    if tags is None:
        raise base.not_found(_KINDS[arn.split(":", 5)[5].split("/")[0]], arn)
    return tags


def _tag_list(tags: Tags) -> list[Params]:
    return [{"Key": key, "Value": tags[key]} for key in sorted(tags)]
