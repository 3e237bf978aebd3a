"""Documents as the Query protocol's forms, made without botocore's serializer, which refuses what is wrong."""

from typing import Any

from botocore.model import Shape

Form = dict[str, str]


def form(shape: Shape, value: Any, path: str = "") -> Form:
    """A form's fields. What is null, or a structure or map without content, leaves no trace in one."""
    if value is None:
        return {}
    if isinstance(value, dict) and shape.type_name == "structure":
        parts = [
            form(member, value[name], f"{path}.{member.serialization.get('name', name)}".lstrip("."))
            for name, member in shape.members.items()
            if name in value
        ]
    elif isinstance(value, list) and shape.type_name == "list":
        if not value:
            return {path: ""}
        parts = [form(shape.member, item, f"{path}.member.{n}") for n, item in enumerate(value, 1)]
    elif isinstance(value, dict) and shape.type_name == "map":
        parts = [
            {
                **form(shape.key, key, f"{path}.entry.{n}.key"),
                **form(shape.value, item, f"{path}.entry.{n}.value"),
            }
            for n, (key, item) in enumerate(value.items(), 1)
        ]
    else:
        return {path: str(value).lower() if isinstance(value, bool) else str(value)}
    return {name: text for part in parts for name, text in part.items()}
