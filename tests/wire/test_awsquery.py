"""The Query protocol against botocore's own serializer and parser, on real models and on one with every shape."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from botocore.model import OperationModel, ServiceModel
from botocore.parsers import QueryParser
from botocore.serialize import QuerySerializer

from moorage.errors import ServiceError, ValidationError
from moorage.wire import awsjson, awsquery, faults

MOMENT = datetime(2026, 3, 1, 6, 30, tzinfo=UTC)

EVERYTHING: dict[str, Any] = {
    "Text": 'ü <b> & "quoted" 😀\n',
    "Renamed": "x",
    "Whole": -5,
    "Long": 2**53,
    "Number": 1.5,
    "Yes": True,
    "No": False,
    "When": MOMENT,
    "Bytes": b"\x00\xff",
    "Texts": [str(n) for n in range(12)],
    "NamedItems": ["a", "b"],
    "FlatTexts": ["a", "b"],
    "FlatNamed": ["c"],
    "Empty": [],
    "Inner": {"Text": "i", "Texts": ["j"]},
    "Inners": [{"Text": "1"}, {"Texts": ["2", "3"]}],
    "Numbers": {"one": 1, "two": 2},
    "FlatNumbers": {"three": 3},
}


def reference(shape: str, **extra: Any) -> dict[str, Any]:
    return {"shape": shape, **extra}


MODEL = {
    "metadata": {"apiVersion": "1", "protocol": "query", "xmlNamespace": "https://example.com/", "type": "x"},
    "operations": {
        "Do": {
            "name": "Do",
            "http": {"method": "POST", "requestUri": "/"},
            "input": reference("Everything"),
            "output": reference("Everything", resultWrapper="DoResult"),
        },
        "Delete": {"name": "Delete", "http": {"method": "POST", "requestUri": "/"}},
    },
    "shapes": {
        "Everything": {
            "type": "structure",
            "members": {
                "Text": reference("String"),
                "Renamed": reference("String", locationName="AnotherName"),
                "Whole": reference("Integer"),
                "Long": reference("Long"),
                "Number": reference("Double"),
                "Yes": reference("Boolean"),
                "No": reference("Boolean"),
                "When": reference("Timestamp"),
                "Bytes": reference("Blob"),
                "Texts": reference("Strings"),
                "NamedItems": reference("NamedItems"),
                "FlatTexts": reference("FlatStrings"),
                "FlatNamed": reference("FlatNamed"),
                "Empty": reference("Strings"),
                "Inner": reference("Inner"),
                "Inners": reference("Inners"),
                "Numbers": reference("Numbers"),
                "FlatNumbers": reference("FlatNumbers"),
            },
        },
        "Inner": {
            "type": "structure",
            "members": {"Text": reference("String"), "Texts": reference("Strings")},
        },
        "String": {"type": "string"},
        "Integer": {"type": "integer"},
        "Long": {"type": "long"},
        "Double": {"type": "double"},
        "Boolean": {"type": "boolean"},
        "Timestamp": {"type": "timestamp"},
        "Blob": {"type": "blob"},
        "Strings": {"type": "list", "member": reference("String")},
        "NamedItems": {"type": "list", "member": reference("String", locationName="item")},
        "FlatStrings": {"type": "list", "member": reference("String"), "flattened": True},
        "FlatNamed": {
            "type": "list",
            "member": reference("String", locationName="FlatItem"),
            "flattened": True,
        },
        "Inners": {"type": "list", "member": reference("Inner")},
        "Numbers": {"type": "map", "key": reference("String"), "value": reference("Integer")},
        "FlatNumbers": {
            "type": "map",
            "key": reference("String", locationName="Name"),
            "value": reference("Integer", locationName="Value"),
            "flattened": True,
        },
    },
}
OPERATION: OperationModel = ServiceModel(MODEL, "example").operation_model("Do")


def serialized(operation: OperationModel, members: Any) -> bytes:
    return urlencode(QuerySerializer().serialize_to_request(members, operation)["body"]).encode()


def parsed(operation: OperationModel, body: bytes, status: int = 200) -> Any:
    reply = {"body": body, "headers": {}, "status_code": status}
    return QueryParser().parse(reply, operation.output_shape)


def test_every_shape_arrives_as_botocore_sent_it() -> None:
    assert awsquery.parse(OPERATION, awsquery.decode(serialized(OPERATION, EVERYTHING))) == EVERYTHING
    assert awsquery.parse(OPERATION, awsquery.decode(serialized(OPERATION, {}))) == {}


def test_botocore_reads_every_shape_as_it_was_rendered() -> None:
    output = parsed(OPERATION, awsquery.render(OPERATION, {**EVERYTHING, "Unknown": 1}, "request-1"))
    assert output.pop("ResponseMetadata")["RequestId"] == "request-1"
    assert output == EVERYTHING


def test_what_is_absent_or_none_is_not_rendered() -> None:
    output = parsed(OPERATION, awsquery.render(OPERATION, {"Text": None, "Inner": {}}, "r"))
    assert output == {
        "Inner": {},
        "ResponseMetadata": {"RequestId": "r", "HTTPStatusCode": 200, "HTTPHeaders": {}},
    }


def test_operations_without_shapes() -> None:
    operation = OPERATION.service_model.operation_model("Delete")
    assert awsquery.parse(operation, awsquery.decode(b"Action=Delete")) == {}
    body = awsquery.render(operation, {}, "r")
    assert parsed(operation, body)["ResponseMetadata"]["RequestId"] == "r"


def test_control_characters_do_not_break_a_reply() -> None:
    assert (
        parsed(OPERATION, awsquery.render(OPERATION, {"Text": "a\x00b\ud800"}, "r"))["Text"]
        == "a\ufffdb\ufffd"
    )
    body = faults.render_query(ServiceError("a\x01<b>"), "r", namespace="https://example.com/")
    error = parsed(OPERATION, body, 500)["Error"]
    assert error["Message"] == "a\ufffd<b>"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"Whole=x", "The value of Whole is not a valid integer."),
        (b"Whole=", "The value of Whole is not a valid integer."),
        (b"Whole=1_0", "The value of Whole is not a valid integer."),
        (b"Whole=+1+", "The value of Whole is not a valid integer."),
        (b"Whole=%D9%A1", "The value of Whole is not a valid integer."),
        (b"Whole=2147483648", "The value of Whole is not a valid integer."),
        (b"Yes=maybe", "The value of Yes is not a valid boolean."),
        (b"When=yesterday", "The value of When is not a valid timestamp."),
        (b"Bytes=%21", "The value of Bytes is not a valid blob."),
        (b"Text.a=b", "The value of Text is not a valid string."),
        (b"Numbers.entry.1.key=a", "The value of Numbers.1.value is not a valid integer."),
        (b"Texts.member.2.x=a", "The value of Texts.2 is not a valid string."),
        (b"Text=\xff", None),
    ],
)
def test_wrong_values_are_named(body: bytes, message: str | None) -> None:
    if message is None:
        with pytest.raises(ValidationError, match="not a form in UTF-8"):
            awsquery.decode(body)
        return
    with pytest.raises(ValidationError) as caught:
        awsquery.parse(OPERATION, awsquery.decode(body))
    assert caught.value.message == message


@pytest.mark.parametrize("body", [b"", b"&&", b"Texts.member=a", b"Inner=x", b".=&..=1", b"Texts.member.x=1"])
def test_odd_forms_are_read_leniently(body: bytes) -> None:
    awsquery.parse(OPERATION, awsquery.decode(body))


def test_constraints_of_real_models_are_checked() -> None:
    operation = awsjson.load("iam", ["CreateUser"]).operations["CreateUser"]
    form = awsquery.decode(b"Action=CreateUser&UserName=a%20b&Tags.member.1.Key=&Tags.member.1.Value=v")
    with pytest.raises(ValidationError) as caught:
        awsquery.parse(operation, form)
    assert "Value 'a b' at 'userName' failed to satisfy constraint" in caught.value.message
    assert "'tags.1.member.key'" in caught.value.message
    with pytest.raises(ValidationError, match="Value null at 'userName'"):
        awsquery.parse(operation, {})
