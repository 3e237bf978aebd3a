"""The AWS Query protocol, driven by botocore's own service models: a form in, XML out.

A form names the members of nested shapes by paths: `Tags.member.1.Key=team`. Lists that the model calls flattened
leave `member` out, as they leave out their wrapping element in XML; maps have `entry.N.key` and `entry.N.value`.
"""

import base64
import binascii
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from botocore.model import OperationModel, Shape

from moorage.errors import ValidationError
from moorage.wire import awsjson, validation
from moorage.wire.faults import xml_text

CONTENT_TYPE = "text/xml"

Form = Mapping[str, str]
_Node = dict[str, Any]
"""What a form has below one path: further nodes by the path's next part, and at `_VALUE` the path's own value."""

_VALUE = "."  # no part of a path

_DIGITS = re.compile("[+-]?[0-9]{1,19}")
_DECIMAL = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")


def decode(body: bytes) -> Form:
    """The fields of a form. One that is there twice counts as it stands last."""
    try:
        return dict(parse_qsl(body.decode("utf-8"), keep_blank_values=True))
    except ValueError as error:
        raise ValidationError("The request body is not a form in UTF-8.") from error


# --- Requests ------------------------------------------------------------------------------------------


def parse(operation: OperationModel, form: Form) -> dict[str, Any]:
    """The members of a request, by the names of the model. Fields that the model does not know are ignored.

    Raises:
        ValidationError: members are missing, break constraints or are of another type.
    """
    shape = operation.input_shape
    if shape is None:
        return {}
    members = _parse_structure(shape, _tree(form), "")
    if broken := awsjson.violations(shape, members):
        raise ValidationError(validation.describe(broken))
    return members


def _tree(form: Form) -> _Node:
    root: _Node = {}
    for path, value in form.items():
        node = root
        for part in path.split("."):
            node = node.setdefault(part, {})
        node[_VALUE] = value
    return root


def _parse(shape: Shape, node: _Node, path: str) -> Any:
    if shape.type_name in _CONTAINERS:
        return _CONTAINERS[shape.type_name](shape, node, path)
    text = node.get(_VALUE)
    try:
        if text is None:
            raise ValueError(path)
        return _SCALARS[shape.type_name](text)
    except (ValueError, OverflowError, binascii.Error):
        raise ValidationError(f"The value of {path} is not a valid {shape.type_name}.") from None


def _parse_structure(shape: Shape, node: _Node, path: str) -> dict[str, Any]:
    return {
        name: _parse(member, node[wire_name], f"{path}.{wire_name}".lstrip("."))
        for name, member in shape.members.items()
        if (wire_name := _wire_name(member, name)) in node
    }


def _parse_list(shape: Shape, node: _Node, path: str) -> list[Any]:
    name = shape.member.serialization.get("name", "member")
    items = node if _is_flat(shape) else node.get(name, {})
    return [_parse(shape.member, item, f"{path}.{number}") for number, item in _numbered(items)]


def _parse_map(shape: Shape, node: _Node, path: str) -> dict[str, Any]:
    key, value = _map_names(shape)
    found = {}
    for number, entry in _numbered(node if _is_flat(shape) else node.get("entry", {})):
        place = f"{path}.{number}"
        name = _parse(shape.key, entry.get(key, {}), f"{place}.{key}")
        found[name] = _parse(shape.value, entry.get(value, {}), f"{place}.{value}")
    return found


def _numbered(node: _Node) -> Iterator[tuple[int, _Node]]:
    """The nodes below 1, 2, 3 …, in this order; gaps are of no importance."""
    numbers = sorted(
        (int(part), part) for part in node if part.isascii() and part.isdigit() and len(part) < 8
    )
    return ((number, node[part]) for number, part in numbers)


def _parse_boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _parse_integer(text: str) -> int:
    return _within(_whole(text), 32)


def _parse_long(text: str) -> int:
    return _within(_whole(text), 64)


def _whole(text: str) -> int:
    """Stricter than Python, which takes spaces, underscores and the digits of every script."""
    if not _DIGITS.fullmatch(text):
        raise ValueError(text)
    return int(text)


def _within(value: int, bits: int) -> int:
    if not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        raise ValueError(value)
    return value


def _parse_number(text: str) -> float:
    number = float(text)
    if not _DECIMAL.fullmatch(text) or not math.isfinite(number):
        raise ValueError(text)
    return number


def _parse_timestamp(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _parse_blob(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


_CONTAINERS: Mapping[str, Callable[[Shape, _Node, str], Any]] = {
    "structure": _parse_structure,
    "list": _parse_list,
    "map": _parse_map,
}
_SCALARS: Mapping[str, Callable[[str], Any]] = {
    "string": str,
    "boolean": _parse_boolean,
    "integer": _parse_integer,
    "long": _parse_long,
    "float": _parse_number,
    "double": _parse_number,
    "timestamp": _parse_timestamp,
    "blob": _parse_blob,
}


def _is_flat(shape: Shape) -> bool:
    return bool(shape.serialization.get("flattened"))


def _wire_name(member: Shape, name: str) -> str:
    """What a structure's member is called on the wire; of a flattened list the items' own name counts."""
    name = member.serialization.get("name", name)
    if member.type_name == "list" and _is_flat(member):
        name = member.member.serialization.get("name", name)
    return name


def _map_names(shape: Shape) -> tuple[str, str]:
    return shape.key.serialization.get("name", "key"), shape.value.serialization.get("name", "value")


# --- Replies -------------------------------------------------------------------------------------------


def render(operation: OperationModel, output: Mapping[str, Any], request_id: str) -> bytes:
    """The body of a reply: the members that the model has and that are not None."""
    name = operation.name
    shape = operation.output_shape
    result = ""
    if shape is not None:
        wrapper = shape.serialization.get("resultWrapper", f"{name}Result")
        result = f"<{wrapper}>{''.join(_members(shape, output))}</{wrapper}>"
    return (
        f'<{name}Response xmlns="{namespace(operation)}">{result}'
        f"<ResponseMetadata><RequestId>{xml_text(request_id)}</RequestId></ResponseMetadata></{name}Response>"
    ).encode()


def namespace(operation: OperationModel) -> str:
    return str(operation.service_model.metadata["xmlNamespace"])


def _members(shape: Shape, value: Mapping[str, Any]) -> Iterator[str]:
    for name, member in shape.members.items():
        if value.get(name) is not None:
            yield _element(_wire_name(member, name), member, value[name])


def _element(tag: str, shape: Shape, value: Any) -> str:
    if shape.type_name == "list" and _is_flat(shape):
        return "".join(_element(tag, shape.member, item) for item in value)
    if shape.type_name == "map" and _is_flat(shape):
        return "".join(f"<{tag}>{entry}</{tag}>" for entry in _entries(shape, value))
    return f"<{tag}>{_content(shape, value)}</{tag}>"


def _content(shape: Shape, value: Any) -> str:
    if shape.type_name == "structure":
        return "".join(_members(shape, value))
    if shape.type_name == "list":
        item_tag = shape.member.serialization.get("name", "member")
        return "".join(_element(item_tag, shape.member, item) for item in value)
    if shape.type_name == "map":
        return "".join(f"<entry>{entry}</entry>" for entry in _entries(shape, value))
    return xml_text(_text(shape, value))


def _entries(shape: Shape, value: Mapping[str, Any]) -> Iterator[str]:
    key_tag, value_tag = _map_names(shape)
    for key, item in value.items():
        yield _element(key_tag, shape.key, key) + _element(value_tag, shape.value, item)


def _text(shape: Shape, value: Any) -> str:
    if shape.type_name == "boolean":
        return "true" if value else "false"
    if shape.type_name == "timestamp":
        return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    if shape.type_name == "blob":
        return base64.b64encode(value).decode()
    return str(value)
