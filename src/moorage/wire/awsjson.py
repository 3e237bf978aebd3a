"""AWS JSON 1.1, driven by botocore's own service models: bodies ↔ members of an operation.

A body is read in two passes, as AWS does it: first the JSON types (the first wrong one is a
`SerializationException`), then the constraints of every nested shape (the broken ones reported together in one
`ValidationException`).
"""

import base64
import binascii
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel, Shape

from moorage.errors import SerializationException, ValidationException
from moorage.wire import patterns, validation

_MOST_VIOLATIONS = 10
"""How many broken constraints one message lists: the number after which AWS stops looking."""

Violations = Iterator[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service's operations: the names of all, the shapes of those that were asked for."""

    names: frozenset[str]
    operations: Mapping[str, OperationModel]


def load(service: str, operations: Collection[str]) -> Service:
    """Read a service model and keep only what the given operations need: the whole is megabytes of prose.

    Raises:
        KeyError: an operation that the model does not have.
    """
    names, kept = _excerpt(service, operations)
    model = ServiceModel(json.loads(kept), service)
    return Service(names=names, operations={name: model.operation_model(name) for name in operations})


def _excerpt(service: str, operations: Collection[str]) -> tuple[frozenset[str], str]:
    """The names of all operations, and as JSON what the given ones need.

    As text, so that its objects are made when those of the whole are gone: made between them, they would keep 7 MB of
    pages that are nearly empty.
    """
    whole = Loader().load_service_model(service, "service-2")
    shapes: dict[str, Any] = {}
    for name in operations:
        operation = whole["operations"][name]
        for side in ("input", "output"):
            if side in operation:
                _copy_shape(operation[side]["shape"], whole["shapes"], shapes)
    kept = {
        name: {key: value for key, value in whole["operations"][name].items() if key in _OPERATION_KEYS}
        for name in operations
    }
    text = json.dumps({"metadata": whole["metadata"], "operations": kept, "shapes": shapes})
    return frozenset(whole["operations"]), text


_OPERATION_KEYS = ("name", "http", "input", "output")


def _copy_shape(name: str, source: Mapping[str, Any], target: dict[str, Any]) -> None:
    if name in target:
        return
    shape = _without_prose(source[name])
    shape["members"] = {key: _without_prose(value) for key, value in shape.get("members", {}).items()}
    if not shape["members"] and shape["type"] != "structure":
        del shape["members"]
    target[name] = shape
    for reference in [
        *shape.get("members", {}).values(),
        *(shape.get(key) for key in ("member", "key", "value")),
    ]:
        if reference is not None:
            _copy_shape(reference["shape"], source, target)


def _without_prose(definition: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in definition.items() if key != "documentation"}


# --- Requests ------------------------------------------------------------------------------------------


def parse(operation: OperationModel, body: bytes) -> dict[str, Any]:
    """The members of a request, which `read` and `check` take their turns at."""
    members = read(operation, body)
    check(operation, members)
    return members


def read(operation: OperationModel, body: bytes) -> dict[str, Any]:
    """The members of a request, by the names of the model, that may yet break constraints.

    Members that the model does not know are ignored, as are those that are null.

    Raises:
        SerializationException: not JSON, or a member has the wrong JSON type.
    """
    document = _decode(body)
    shape = operation.input_shape
    members: dict[str, Any] = {} if shape is None else _convert(shape, document)
    return members


def check(operation: OperationModel, members: Mapping[str, Any]) -> None:
    """Raises `ValidationException` when members are missing or break constraints."""
    shape = operation.input_shape
    if shape is not None and (broken := violations(shape, members)):
        raise ValidationException(validation.describe(broken))


def violations(shape: Shape, members: Mapping[str, Any]) -> list[str]:
    """The constraints that the members of a request break: the first ten, for one message."""
    return list(islice(_check_members(shape, members, ""), _MOST_VIOLATIONS))


def _decode(body: bytes) -> Any:
    try:
        text = body.decode("utf-8")
        document = json.loads(text, parse_constant=_refuse_constant) if text.strip() else {}
        # JSON can spell half a surrogate pair, which is no character and cannot be stored.
        if "\\ud" in text or "\\uD" in text:
            json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise SerializationException("The request body is not valid JSON.") from error
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _convert(shape: Shape, value: Any) -> Any:
    return _CONVERTERS[shape.type_name](shape, value)


def _convert_structure(shape: Shape, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _misplaced(value, "null")
    return {
        name: _convert(member, value[name])
        for name, member in shape.members.items()
        if value.get(name) is not None
    }


def _convert_list(shape: Shape, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _misplaced(value, "list or null")
    return [None if item is None else _convert(shape.member, item) for item in value]


def _convert_map(shape: Shape, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _misplaced(value, "map or null")
    return {key: None if item is None else _convert(shape.value, item) for key, item in value.items()}


def _convert_string(shape: Shape, value: Any) -> str:
    if not isinstance(value, str):
        raise _inconvertible(value, "String")
    return value


def _convert_boolean(shape: Shape, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _inconvertible(value, "Boolean")
    return value


def _convert_whole(shape: Shape, value: Any) -> int:
    bits, name = (32, "Integer") if shape.type_name == "integer" else (64, "Long")
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise _inconvertible(value, name)
    if not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        raise _inconvertible(value, name)
    return int(value)


def _convert_number(shape: Shape, value: Any) -> float:
    name = shape.type_name.capitalize()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _inconvertible(value, name)
    try:
        number = float(value)
    except OverflowError as error:
        raise _inconvertible(value, name) from error
    if not math.isfinite(number):
        raise _inconvertible(value, name)
    return number


def _convert_timestamp(shape: Shape, value: Any) -> datetime:
    try:
        return _instant(value)
    except (TypeError, ValueError, OverflowError, OSError) as error:
        raise _inconvertible(value, "Timestamp") from error


def _instant(value: Any) -> datetime:
    """Seconds since 1970, or ISO 8601 (without an offset: UTC)."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError(f"not a time: {value!r}")
    if not isinstance(value, str):
        return datetime.fromtimestamp(value, UTC)
    moment = datetime.fromisoformat(value)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _convert_blob(shape: Shape, value: Any) -> bytes:
    if not isinstance(value, str):
        raise _inconvertible(value, "Blob")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SerializationException(f"'{value}' can not be converted to a Blob: {error}") from error


_CONVERTERS: Mapping[str, Callable[[Shape, Any], Any]] = {
    "structure": _convert_structure,
    "list": _convert_list,
    "map": _convert_map,
    "string": _convert_string,
    "boolean": _convert_boolean,
    "integer": _convert_whole,
    "long": _convert_whole,
    "float": _convert_number,
    "double": _convert_number,
    "timestamp": _convert_timestamp,
    "blob": _convert_blob,
}


def _inconvertible(value: Any, wanted: str) -> SerializationException:
    if isinstance(value, list):
        return SerializationException("Start of list found where not expected")
    if isinstance(value, dict):
        return SerializationException("Start of structure or map found where not expected.")
    return SerializationException(f"{_token(value)} cannot be converted to {wanted}")


def _misplaced(value: Any, expected: str) -> SerializationException:
    if isinstance(value, list | dict):
        return _inconvertible(value, expected)
    return SerializationException(f"Expected {expected}")


def _token(value: Any) -> str:
    if isinstance(value, bool):
        return "TRUE_VALUE" if value else "FALSE_VALUE"
    if isinstance(value, str):
        return "STRING_VALUE"
    return "NUMBER_VALUE" if isinstance(value, int) else "DECIMAL_VALUE"


# --- Constraints ---------------------------------------------------------------------------------------


def _check_members(shape: Shape, value: Mapping[str, Any], path: str) -> Violations:
    for name, member in shape.members.items():
        member_path = f"{path}{name[:1].lower()}{name[1:]}"
        if name in value:
            yield from _check(member, value[name], member_path)
        elif name in shape.required_members:
            yield validation.violation(None, member_path, validation.NOT_NULL)


def _check(shape: Shape, value: Any, path: str) -> Violations:
    for rule in _broken_rules(shape, value):
        yield validation.violation(_shown(value), path, rule)
    if shape.type_name == "structure":
        yield from _check_members(shape, value, f"{path}.")
    elif shape.type_name == "list":
        yield from _check_elements(
            shape.member, [(str(n), item) for n, item in enumerate(value, 1)], value, path
        )
    elif shape.type_name == "map":
        if any(True for key in value for _ in _broken_rules(shape.key, key)):
            rules = ", ".join(_rules(shape.key))
            yield validation.violation(_shown(value), path, f"Map keys must satisfy constraint: [{rules}]")
        yield from _check_elements(shape.value, list(value.items()), value, path)


def _check_elements(shape: Shape, elements: list[tuple[str, Any]], value: Any, path: str) -> Violations:
    """Elements that are containers are checked each at its own path, scalars together at the list's or map's."""
    subject = "Map value" if isinstance(value, dict) else "Member"
    if any(element is None for _, element in elements):
        yield validation.violation(
            _shown(value), path, f"{subject} must satisfy constraint: [{validation.NOT_NULL}]"
        )
    given = [(key, element) for key, element in elements if element is not None]
    if shape.type_name in ("structure", "list", "map"):
        for key, element in given:
            yield from _check(shape, element, f"{path}.{key}.member")
    elif any(True for _, element in given for _ in _broken_rules(shape, element)):
        rules = ", ".join(_rules(shape))
        yield validation.violation(_shown(value), path, f"{subject} must satisfy constraint: [{rules}]")


def _broken_rules(shape: Shape, value: Any) -> Iterator[str]:
    """The rules of this very shape that a value breaks, in the order in which AWS names them."""
    limits = shape.metadata
    if shape.type_name == "string" and limits.get("enum") and value not in limits["enum"]:
        yield validation.one_of(limits["enum"])
    # A pattern is not tried on a value that is too long anyway: trying may take time that grows with its square.
    too_long = shape.type_name == "string" and len(value) > limits.get("max", math.inf)
    pattern = limits.get("pattern")
    if pattern and not too_long and not patterns.compiled(pattern).fullmatch(value):
        yield validation.matches(pattern)
    if shape.type_name in _SIZED:
        if len(value) > limits.get("max", math.inf):
            yield validation.at_most_long(limits["max"])
        if len(value) < limits.get("min", 0):
            yield validation.at_least_long(limits["min"])
    elif shape.type_name in _NUMBERS:
        if value > limits.get("max", math.inf):
            yield validation.at_most(limits["max"])
        if value < limits.get("min", -math.inf):
            yield validation.at_least(limits["min"])


_SIZED = ("string", "list", "map", "blob")
_NUMBERS = ("integer", "long", "float", "double")


def _rules(shape: Shape) -> Iterator[str]:
    """All rules of a scalar shape: AWS lists them whole when it speaks of the elements of a list or map."""
    limits = shape.metadata
    sized = shape.type_name in _SIZED
    if "max" in limits:
        yield (validation.at_most_long if sized else validation.at_most)(limits["max"])
    if "min" in limits:
        yield (validation.at_least_long if sized else validation.at_least)(limits["min"])
    if "pattern" in limits:
        yield validation.matches(limits["pattern"])
    if shape.type_name == "string" and limits.get("enum"):
        yield validation.one_of(limits["enum"])


def _shown(value: Any) -> str:
    """A value as Java prints it, which is how AWS echoes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(_shown(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}={_shown(item)}' for key, item in value.items())}}}"
    return "null" if value is None else str(value)


# --- Replies -------------------------------------------------------------------------------------------


def render(operation: OperationModel, output: Mapping[str, Any]) -> bytes:
    """The body of a reply: the members that the model has and that are not None. No output shape, no body."""
    shape = operation.output_shape
    if shape is None:
        return b""
    return json.dumps(_rendered(shape, output)).encode()


def _rendered(shape: Shape, value: Any) -> Any:
    if shape.type_name == "structure":
        return {
            name: _rendered(member, value[name])
            for name, member in shape.members.items()
            if value.get(name) is not None
        }
    if shape.type_name == "list":
        return [_rendered(shape.member, item) for item in value]
    if shape.type_name == "map":
        return {key: _rendered(shape.value, item) for key, item in value.items()}
    if shape.type_name == "timestamp":
        moment = value if isinstance(value, datetime) else _instant(value)
        return round(moment.timestamp(), 3)
    if shape.type_name == "blob":
        return base64.b64encode(value).decode()
    return value
