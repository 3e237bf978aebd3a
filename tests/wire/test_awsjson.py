import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel
from hypothesis import given
from hypothesis import strategies as st

from moorage.controller.operations import OPERATIONS
from moorage.errors import SerializationException, ServiceError, ValidationException
from moorage.wire import awsjson, patterns

SERVICE = awsjson.load("sagemaker", [*OPERATIONS, "CreateTrainingJob"])


def parse(operation: str, document: Any) -> dict[str, Any]:
    return awsjson.parse(SERVICE.operations[operation], json.dumps(document).encode())


def refusal(operation: str, document: Any) -> str:
    with pytest.raises(ValidationException) as caught:
        parse(operation, document)
    return caught.value.message


def made_up(shape: dict[str, Any], **more_shapes: Any) -> OperationModel:
    """An operation with one member, `Value`, of the given shape."""
    model = {
        "metadata": {"protocol": "json"},
        "operations": {
            "Do": {
                "name": "Do",
                "http": {"method": "POST", "requestUri": "/"},
                "input": {"shape": "DoInput"},
                "output": {"shape": "DoInput"},
            }
        },
        "shapes": {
            "DoInput": {"type": "structure", "members": {"Value": {"shape": "Given"}}},
            "Given": shape,
            **more_shapes,
        },
    }
    return ServiceModel(model, "made-up").operation_model("Do")


# --- The model -----------------------------------------------------------------------------------------


def test_all_operations_are_known_by_name_and_the_served_ones_by_shape() -> None:
    whole = Loader().load_service_model("sagemaker", "service-2")
    assert SERVICE.names == set(whole["operations"])
    assert set(SERVICE.operations) == {*OPERATIONS, "CreateTrainingJob"}


def test_every_member_of_the_served_operations_is_kept() -> None:
    whole = ServiceModel(Loader().load_service_model("sagemaker", "service-2"))
    for name, operation in SERVICE.operations.items():
        for side in ("input_shape", "output_shape"):
            assert _outline(getattr(operation, side)) == _outline(getattr(whole.operation_model(name), side))


def _outline(shape: Any) -> Any:
    if shape is None:
        return None
    parts = {"type": shape.type_name, "limits": shape.metadata}
    if shape.type_name == "structure":
        return parts | {"members": {name: _outline(member) for name, member in shape.members.items()}}
    if shape.type_name == "list":
        return parts | {"member": _outline(shape.member)}
    if shape.type_name == "map":
        return parts | {"key": _outline(shape.key), "value": _outline(shape.value)}
    return parts


def test_an_operation_that_the_model_does_not_have_is_an_error() -> None:
    with pytest.raises(KeyError):
        awsjson.load("sagemaker", ["CreateTea"])


def test_every_pattern_that_a_request_can_meet_compiles() -> None:
    def meet(outline: Any) -> None:
        if isinstance(outline, dict):
            if isinstance(outline.get("pattern"), str):
                patterns.compiled(outline["pattern"])
            for part in outline.values():
                meet(part)

    for operation in SERVICE.operations.values():
        meet(_outline(operation.input_shape))


# --- Types ---------------------------------------------------------------------------------------------


def test_members_come_by_their_names_and_unknown_and_null_ones_are_ignored() -> None:
    assert parse("DescribeModel", {"ModelName": "a", "Colour": "red"}) == {"ModelName": "a"}
    assert parse("ListModels", {"NextToken": None, "MaxResults": 5}) == {"MaxResults": 5}


def test_no_body_is_no_members() -> None:
    assert awsjson.parse(SERVICE.operations["ListModels"], b"") == {}


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff{}",
        b'{"MaxResults": NaN}',
        b'{"MaxResults": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        rb'{"NameContains": "\ud800"}',
        rb'{"\udc00": 1}',
    ],
    ids=range(8),
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(SerializationException, match="not valid JSON"):
        awsjson.parse(SERVICE.operations["ListModels"], body)


def test_surrogate_pairs_are_characters() -> None:
    body = rb'{"ModelName": "a", "PrimaryContainer": {"Environment": {"A": "\ud83d\ude00"}}}'
    members = awsjson.parse(SERVICE.operations["CreateModel"], body)
    assert members["PrimaryContainer"]["Environment"] == {"A": "😀"}


@pytest.mark.parametrize(
    ("operation", "document", "message"),
    [
        ("DescribeModel", {"ModelName": 1}, "NUMBER_VALUE cannot be converted to String"),
        ("DescribeModel", {"ModelName": 1.5}, "DECIMAL_VALUE cannot be converted to String"),
        ("DescribeModel", {"ModelName": True}, "TRUE_VALUE cannot be converted to String"),
        ("DescribeModel", {"ModelName": []}, "Start of list found where not expected"),
        ("DescribeModel", {"ModelName": {}}, "Start of structure or map found where not expected."),
        ("ListModels", {"MaxResults": "5"}, "STRING_VALUE cannot be converted to Integer"),
        ("ListModels", {"MaxResults": 5.5}, "DECIMAL_VALUE cannot be converted to Integer"),
        ("ListModels", {"MaxResults": 2**31}, "NUMBER_VALUE cannot be converted to Integer"),
        ("ListModels", {"MaxResults": False}, "FALSE_VALUE cannot be converted to Integer"),
        ("ListModels", {"CreationTimeAfter": "soon"}, "STRING_VALUE cannot be converted to Timestamp"),
        ("ListModels", {"CreationTimeAfter": 1e300}, "DECIMAL_VALUE cannot be converted to Timestamp"),
        ("ListModels", [], "Start of list found where not expected"),
        ("ListModels", 3, "Expected null"),
        ("ListModels", None, "Expected null"),
        (
            "CreateModel",
            {"ModelName": "a", "Containers": {}},
            "Start of structure or map found where not expected.",
        ),
        ("CreateModel", {"ModelName": "a", "Containers": "b"}, "Expected list or null"),
        ("CreateModel", {"PrimaryContainer": {"Environment": 1}}, "Expected map or null"),
        (
            "CreateModel",
            {"PrimaryContainer": {"Environment": {"A": 1}}},
            "NUMBER_VALUE cannot be converted to String",
        ),
        ("CreateModel", {"PrimaryContainer": 1}, "Expected null"),
        ("CreateModel", {"EnableNetworkIsolation": "yes"}, "STRING_VALUE cannot be converted to Boolean"),
        ("CreateEndpointConfig", {"ProductionVariants": [3]}, "Expected null"),
        (
            "CreateEndpointConfig",
            {"ProductionVariants": [{"InitialVariantWeight": "1"}]},
            "STRING_VALUE cannot be converted to Float",
        ),
    ],
)
def test_a_wrong_json_type_is_a_serialization_exception(operation: str, document: Any, message: str) -> None:
    with pytest.raises(SerializationException) as caught:
        parse(operation, document)
    assert caught.value.message == message


def test_whole_numbers_may_be_written_as_decimals_and_floats_as_whole_numbers() -> None:
    assert parse("ListModels", {"MaxResults": 5.0}) == {"MaxResults": 5}
    variant = {"VariantName": "a", "InitialVariantWeight": 2}
    members = parse("CreateEndpointConfig", {"EndpointConfigName": "c", "ProductionVariants": [variant]})
    assert isinstance(members["ProductionVariants"][0]["InitialVariantWeight"], float)


@pytest.mark.parametrize("literal", ["1e400", "-1e400", "1" + "0" * 400])
def test_numbers_beyond_a_float_are_refused(literal: str) -> None:
    for shape in ("float", "double", "long", "timestamp"):
        with pytest.raises(SerializationException):
            awsjson.parse(made_up({"type": shape}), b'{"Value": ' + literal.encode() + b"}")


@pytest.mark.parametrize(
    "given",
    [
        1772346600,
        1772346600.0,
        "2026-03-01T06:30:00Z",
        "2026-03-01T06:30:00",
        "2026-03-01T12:00:00+05:30",
        "2026-03-01T06:30:00.000Z",
    ],
)
def test_times_are_aware_whether_numbers_or_iso(given: Any) -> None:
    time = parse("ListModels", {"CreationTimeAfter": given})["CreationTimeAfter"]
    assert time == datetime(2026, 3, 1, 6, 30, tzinfo=UTC)
    assert time.utcoffset() == timedelta(0)


def test_blobs_are_base64() -> None:
    blob = made_up({"type": "blob", "max": 2})
    assert awsjson.parse(blob, b'{"Value": "AAE="}') == {"Value": b"\x00\x01"}
    assert awsjson.render(blob, {"Value": b"\x00\x01"}) == b'{"Value": "AAE="}'
    for bad in ("A", "A===", "****", "é"):
        with pytest.raises(SerializationException, match="can not be converted to a Blob"):
            awsjson.parse(blob, json.dumps({"Value": bad}).encode())
    with pytest.raises(ValidationException, match="length less than or equal to 2"):
        awsjson.parse(blob, b'{"Value": "AAAA"}')


# --- Constraints ---------------------------------------------------------------------------------------

NAME = "[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"


def test_missing_required_member() -> None:
    assert refusal("DescribeEndpoint", {}) == (
        "1 validation error detected: Value null at 'endpointName' failed to satisfy constraint: "
        "Member must not be null"
    )
    assert refusal("DescribeEndpoint", {"EndpointName": None}) == refusal("DescribeEndpoint", {})


def test_pattern() -> None:
    assert refusal("DescribeEndpoint", {"EndpointName": "a_b"}) == (
        "1 validation error detected: Value 'a_b' at 'endpointName' failed to satisfy constraint: "
        f"Member must satisfy regular expression pattern: {NAME}"
    )


def test_too_long() -> None:
    assert refusal("DescribeEndpoint", {"EndpointName": "a" * 64}) == (
        f"1 validation error detected: Value '{'a' * 64}' at 'endpointName' failed to satisfy constraint: "
        "Member must have length less than or equal to 63"
    )


def test_enum_in_a_list_of_structures() -> None:
    variant = {"VariantName": "a", "InstanceType": "local"}
    message = refusal("CreateEndpointConfig", {"EndpointConfigName": "c", "ProductionVariants": [variant]})
    assert message.startswith(
        "1 validation error detected: Value 'local' at 'productionVariants.1.member.instanceType' failed to "
        "satisfy constraint: Member must satisfy enum value set: [ml.t2.medium, ml.t2.large, "
    )


def test_all_violations_are_told_at_once_in_the_order_of_the_model() -> None:
    message = refusal(
        "CreateEndpointConfig",
        {
            "ProductionVariants": [
                {"VariantName": "a"},
                {"InitialInstanceCount": 0, "InitialVariantWeight": -0.5},
            ]
        },
    )
    assert message == (
        "4 validation errors detected: "
        "Value null at 'endpointConfigName' failed to satisfy constraint: Member must not be null; "
        "Value null at 'productionVariants.2.member.variantName' failed to satisfy constraint: "
        "Member must not be null; "
        "Value '0' at 'productionVariants.2.member.initialInstanceCount' failed to satisfy constraint: "
        "Member must have value greater than or equal to 1; "
        "Value '-0.5' at 'productionVariants.2.member.initialVariantWeight' failed to satisfy constraint: "
        "Member must have value greater than or equal to 0"
    )


def test_only_so_many_violations_are_told() -> None:
    variants = [{"InstanceType": "x"}] * 10_000
    message = refusal("CreateEndpointConfig", {"EndpointConfigName": "c", "ProductionVariants": variants})
    assert message.startswith("10 validation errors detected: ")


def test_sizes_of_lists() -> None:
    assert refusal("CreateEndpointConfig", {"EndpointConfigName": "c", "ProductionVariants": []}) == (
        "1 validation error detected: Value '[]' at 'productionVariants' failed to satisfy constraint: "
        "Member must have length greater than or equal to 1"
    )


def test_elements_that_are_scalars_are_told_as_those_of_their_list() -> None:
    vpc = {"SecurityGroupIds": ["sg-1", "sg_2"], "Subnets": ["subnet-1"]}
    assert refusal("CreateModel", {"ModelName": "a", "VpcConfig": vpc}) == (
        "1 validation error detected: Value '[sg-1, sg_2]' at 'vpcConfig.securityGroupIds' failed to satisfy "
        "constraint: Member must satisfy constraint: [Member must have length less than or equal to 32, "
        "Member must have length greater than or equal to 0, "
        "Member must satisfy regular expression pattern: [-0-9a-zA-Z]+]"
    )


def test_keys_and_values_of_maps() -> None:
    container = {"Environment": {"1A": "x", "B": "y" * 1025}}
    shown = f"{{1A=x, B={'y' * 1025}}}"
    assert refusal("CreateModel", {"ModelName": "a", "PrimaryContainer": container}) == (
        f"2 validation errors detected: Value '{shown}' at 'primaryContainer.environment' failed to satisfy "
        "constraint: Map keys must satisfy constraint: [Member must have length less than or equal to 1024, "
        "Member must have length greater than or equal to 0, "
        "Member must satisfy regular expression pattern: [a-zA-Z_][a-zA-Z0-9_]*]; "
        f"Value '{shown}' at 'primaryContainer.environment' failed to satisfy constraint: Map value must satisfy "
        "constraint: [Member must have length less than or equal to 1024, "
        "Member must have length greater than or equal to 0, "
        r"Member must satisfy regular expression pattern: [\S\s]*]"
    )


def test_null_elements_are_violations() -> None:
    assert (
        "Value '[null]' at 'tags' failed to satisfy constraint: Member must satisfy constraint: "
        in refusal("CreateModel", {"ModelName": "a", "Tags": [None]})
    )
    assert "Map value must satisfy constraint: [Member must not be null]" in refusal(
        "CreateModel", {"ModelName": "a", "PrimaryContainer": {"Environment": {"A": None}}}
    )


def test_structures_in_maps_have_paths_with_their_key() -> None:
    operation = made_up(
        {"type": "map", "key": {"shape": "Text"}, "value": {"shape": "Inner"}},
        Text={"type": "string"},
        Inner={"type": "structure", "required": ["Left"], "members": {"Left": {"shape": "Text"}}},
    )
    with pytest.raises(ValidationException, match=r"at 'value\.k\.member\.left' failed"):
        awsjson.parse(operation, b'{"Value": {"k": {}}}')


def test_unicode_in_tags() -> None:
    good = {"Key": "Größe Ж", "Value": ""}
    assert parse("CreateModel", {"ModelName": "a", "Tags": [good]})["Tags"] == [good]
    assert "at 'tags.1.member.value'" in refusal(
        "CreateModel", {"ModelName": "a", "Tags": [{"Key": "a", "Value": "#"}]}
    )
    assert "length greater than or equal to 1" in refusal(
        "CreateModel", {"ModelName": "a", "Tags": [{"Key": "", "Value": "b"}]}
    )


scalar = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6)
anything = (
    scalar
    | st.lists(scalar, max_size=2)
    | st.lists(st.fixed_dictionaries({}, optional={"VariantName": scalar, "Key": scalar}), max_size=2)
    | st.fixed_dictionaries(
        {}, optional={"Image": scalar, "Environment": st.dictionaries(scalar, scalar, max_size=2)}
    )
)
MEMBERS = ("ModelName", "EndpointName", "PrimaryContainer", "Tags", "ProductionVariants", "CreationTimeAfter")


@given(
    st.sampled_from(sorted(OPERATIONS)), st.fixed_dictionaries({}, optional=dict.fromkeys(MEMBERS, anything))
)
def test_any_json_is_either_parsed_or_refused(operation: str, document: Any) -> None:
    try:
        members = awsjson.parse(
            SERVICE.operations[operation], json.dumps(document).encode("utf-8", "replace")
        )
    except ServiceError as error:
        assert error.status == 400
        assert error.message
    else:
        assert isinstance(members, dict)


# --- Replies -------------------------------------------------------------------------------------------


def render(operation: str, output: dict[str, Any]) -> Any:
    return json.loads(awsjson.render(SERVICE.operations[operation], output))


def test_a_reply_has_the_members_of_the_shape_that_are_not_none() -> None:
    time = datetime(2026, 3, 1, 6, 30, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    reply = render(
        "DescribeEndpoint",
        {
            "EndpointName": "a",
            "FailureReason": None,
            "CreationTime": time,
            "Secret": "x",
            "ProductionVariants": [
                {
                    "VariantName": "v",
                    "Other": 1,
                    "DeployedImages": [{"ResolutionTime": "2026-03-01T04:30:00Z"}],
                }
            ],
        },
    )
    assert reply == {
        "EndpointName": "a",
        "CreationTime": 1772339400.123,
        "ProductionVariants": [{"VariantName": "v", "DeployedImages": [{"ResolutionTime": 1772339400.0}]}],
    }


def test_an_operation_without_output_has_no_body_and_one_without_members_an_empty_object() -> None:
    assert awsjson.render(SERVICE.operations["DeleteModel"], {"x": 1}) == b""
    assert awsjson.render(SERVICE.operations["DeleteTags"], {}) == b"{}"


def test_maps_keep_their_order() -> None:
    environment = {"Z": "1", "A": "2"}
    reply = render("DescribeModel", {"PrimaryContainer": {"Environment": environment}})
    assert list(reply["PrimaryContainer"]["Environment"]) == ["Z", "A"]
