"""The header table, member by member against the service model, and every constraint broken one by one."""

import re

import botocore.session
import pytest
from botocore.model import OperationModel, Shape
from hypothesis import given
from hypothesis import strategies as st

from moorage.errors import ValidationError
from moorage.wire import invocation as wire
from moorage.wire import patterns

SERVICE = botocore.session.Session().get_service_model("sagemaker-runtime")
MODELS: dict[str, OperationModel] = {
    operation.name: SERVICE.operation_model(operation.name)
    for operation in (wire.SYNC, wire.STREAM, wire.ASYNC)
}
TABLES = {
    "InvokeEndpoint": wire.INVOKE_ENDPOINT,
    "InvokeEndpointWithResponseStream": wire.INVOKE_ENDPOINT_WITH_RESPONSE_STREAM,
    "InvokeEndpointAsync": wire.INVOKE_ENDPOINT_ASYNC,
}
OUTSIDE_THE_TABLE = {"EndpointName", "Body"}
NAME = "^[a-zA-Z0-9](-*[a-zA-Z0-9])*"
NOT_YET_IN_EVERY_BOTOCORE = {"PrefixAwareId"}


@pytest.mark.parametrize("operation", MODELS)
def test_the_table_has_every_member_and_no_other(operation: str) -> None:
    modeled = set(MODELS[operation].input_shape.members)
    known = {member.name for member in TABLES[operation]}
    assert modeled - OUTSIDE_THE_TABLE <= known
    assert known - modeled <= NOT_YET_IN_EVERY_BOTOCORE


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        (operation, name)
        for operation, model in MODELS.items()
        for name in model.input_shape.members
        if name != "Body"
    ],
)
def test_a_member_is_as_the_model_has_it(operation: str, name: str) -> None:
    shape = MODELS[operation].input_shape.members[name]
    table = {member.name: member for member in (*TABLES[operation], wire.ENDPOINT_NAME)}
    member = table[name]
    if name != "EndpointName":
        assert member.header.decode() == shape.serialization["name"].lower()
    if isinstance(member, wire.IntegerMember):
        assert shape.type_name == "integer"
        assert shape.metadata == {"min": member.least, "max": member.most}
        return
    assert shape.type_name == "string"
    assert member.max_length == shape.metadata["max"]
    assert member.min_length == shape.metadata.get("min", 0)
    assert member.pattern == shape.metadata["pattern"]
    assert member.sensitive == shape.metadata.get("sensitive", False)


def test_the_operation_is_as_the_model_has_it() -> None:
    model = MODELS["InvokeEndpoint"]
    assert model.http == {"method": "POST", "requestUri": "/endpoints/{EndpointName}/invocations"}
    assert model.input_shape.required_members == ["EndpointName", "Body"]
    assert model.input_shape.members["Body"].metadata["max"] == 6 * 1024 * 1024


@pytest.mark.parametrize("operation", [wire.SYNC, wire.STREAM], ids=lambda operation: operation.name)
def test_the_reply_has_every_header_of_the_model(operation: wire.Operation) -> None:
    given_back = {
        shape.serialization["name"].lower()
        for shape in MODELS[operation.name].output_shape.members.values()
        if shape.serialization.get("location") == "header"
    }
    container = {
        b"content-type": b"a/b",
        b"x-amzn-sagemaker-custom-attributes": b"c",
        b"x-amzn-sagemaker-new-session-id": b"d",
        b"x-amzn-sagemaker-closed-session-id": b"e",
        b"x-amzn-invoked-production-variant": b"not the container's to say",
        b"server": b"x",
    }
    lines = wire.render_reply_headers(operation, container).decode().lower()
    rendered = {line.partition(":")[0] for line in lines.split("\r\n") if line}
    assert rendered | {"x-amzn-invoked-production-variant"} == given_back


def refusal(headers: dict[bytes, bytes], name: bytes = b"echo", operation: wire.Operation = wire.SYNC) -> str:
    with pytest.raises(ValidationError) as caught:
        wire.parse(operation, name, headers)
    return caught.value.message


def one(value: str, key: str, rule: str) -> str:
    return f"1 validation error detected: Value '{value}' at '{key}' failed to satisfy constraint: Member must {rule}"


ARN = "arn:aws:sagemaker:us-east-1:111122223333:endpoint"


@pytest.mark.parametrize("raw", [f"{ARN}/Echo-1", f"{ARN}/Echo-1".replace(":", "%3A").replace("/", "%2F")])
def test_an_endpoint_may_be_named_by_its_arn(raw: str) -> None:
    assert wire.parse(wire.SYNC, raw.encode(), {}).endpoint_name == f"{ARN}/echo-1"
    assert wire.parse(wire.SYNC, f"{ARN}%2F{'x' * 63}".encode(), {}).endpoint_name == f"{ARN}/{'x' * 63}"


@pytest.mark.parametrize(
    "name",
    [
        f"{ARN}/",
        f"{ARN}/-x",
        f"{ARN}/{'x' * 64}",
        f"{ARN}/x/y",
        f"{ARN}-config/x",
        f"{ARN}/x".replace("111122223333", ""),
        f"{ARN}/x".replace("arn:aws:", "arn:aws-cn:"),
        f"{ARN}/x".replace("sagemaker", "s3"),
        f"{ARN}/é",
        "arn:aws:sagemaker",
    ],
)
def test_what_is_neither_a_name_nor_an_arn_of_an_endpoint_is_refused(name: str) -> None:
    assert "at 'endpointName' failed to satisfy constraint" in refusal({}, name.encode())


PATTERN = "satisfy regular expression pattern: "
PRINTABLE = PATTERN + r"\A\S[\p{Print}]*\z"
SESSION = PATTERN + "^(NEW_SESSION)$|^[a-zA-Z0-9](-*[a-zA-Z0-9])*$"
COMPONENT = PATTERN + r"^[a-zA-Z0-9]([\-a-zA-Z0-9]*[a-zA-Z0-9])?$"
BROKEN = [
    ("Content-Type", "x" * 1025, "contentType", "have length less than or equal to 1024"),
    ("Content-Type", "é", "contentType", PATTERN + r"\p{ASCII}*"),
    ("Accept", "x" * 1025, "accept", "have length less than or equal to 1024"),
    ("Accept", "é", "accept", PATTERN + r"\p{ASCII}*"),
    ("Custom-Attributes", "x" * 1025, "customAttributes", "have length less than or equal to 1024"),
    ("Custom-Attributes", "é", "customAttributes", PATTERN + r"\p{ASCII}*"),
    ("Target-Model", "x" * 1025, "targetModel", "have length less than or equal to 1024"),
    ("Target-Model", " x", "targetModel", PRINTABLE),
    ("Target-Model", "é", "targetModel", PRINTABLE),
    ("Target-Model", "x\ty", "targetModel", PRINTABLE),
    ("Target-Variant", "x" * 64, "targetVariant", "have length less than or equal to 63"),
    ("Target-Variant", "-x", "targetVariant", PATTERN + NAME),
    ("Target-Variant", "x-", "targetVariant", PATTERN + NAME),
    ("Target-Variant", "", "targetVariant", PATTERN + NAME),
    (
        "Target-Container-Hostname",
        "x" * 64,
        "targetContainerHostname",
        "have length less than or equal to 63",
    ),
    ("Target-Container-Hostname", "x.y", "targetContainerHostname", PATTERN + NAME),
    ("Inference-Id", "x" * 65, "inferenceId", "have length less than or equal to 64"),
    ("Inference-Id", "x\x7f", "inferenceId", PRINTABLE),
    ("Enable-Explanations", "x" * 65, "enableExplanations", "have length less than or equal to 64"),
    ("Enable-Explanations", "", "enableExplanations", "have length greater than or equal to 1"),
    ("Inference-Component", "x" * 64, "inferenceComponentName", "have length less than or equal to 63"),
    ("Inference-Component", "x-", "inferenceComponentName", COMPONENT),
    ("Session-Id", "x" * 257, "sessionId", "have length less than or equal to 256"),
    ("Session-Id", "NEW_SESSION_", "sessionId", SESSION),
    ("Session-Id", "", "sessionId", SESSION),
    ("Prefix-Aware-Id", "x" * 65, "prefixAwareId", "have length less than or equal to 64"),
    ("Prefix-Aware-Id", " ", "prefixAwareId", PRINTABLE),
]


def header(name: str) -> bytes:
    plain = name in ("Content-Type", "Accept")
    return (name if plain else f"X-Amzn-SageMaker-{name}").lower().encode()


@pytest.mark.parametrize(("name", "value", "key", "rule"), BROKEN)
def test_a_broken_constraint_is_named(name: str, value: str, key: str, rule: str) -> None:
    shown = "***" if key == "customAttributes" else value
    assert refusal({header(name): value.encode()}) == one(shown, key, rule)


@pytest.mark.parametrize(("name", "value", "key", "rule"), BROKEN)
def test_one_character_less_is_within(name: str, value: str, key: str, rule: str) -> None:
    if "less than" in rule:
        parsed = wire.parse(wire.SYNC, b"echo", {header(name): value[1:].encode()})
        assert parsed.members == {header(name): value[1:].encode()}


@pytest.mark.parametrize("key", ["targetModel", "inferenceId", "prefixAwareId"])
def test_an_empty_value_breaks_both_its_constraints(key: str) -> None:
    name = {"targetModel": "Target-Model", "inferenceId": "Inference-Id", "prefixAwareId": "Prefix-Aware-Id"}[
        key
    ]
    assert refusal({header(name): b""}) == (
        f"2 validation errors detected: Value '' at '{key}' failed to satisfy constraint: Member must have length "
        f"greater than or equal to 1; Value '' at '{key}' failed to satisfy constraint: Member must {PRINTABLE}"
    )


def test_everything_broken_is_reported_at_once() -> None:
    message = refusal({header("Target-Variant"): b"-", header("Session-Id"): b"-"}, b"-")
    assert message.startswith("3 validation errors detected: Value '-' at 'endpointName' failed")
    assert "; Value '-' at 'targetVariant' failed" in message
    assert "; Value '-' at 'sessionId' failed" in message


@pytest.mark.parametrize(
    "name", [b"", b"-a", b"a-", b"a_b", b"a%20b", b"a%2Fb", b"%C3%A9", b"%", b"%zz", b"a" * 64]
)
def test_endpoint_names_that_are_none(name: bytes) -> None:
    assert "at 'endpointName' failed to satisfy constraint" in refusal({}, name)


@pytest.mark.parametrize(
    ("raw", "name"),
    [(b"a", "a"), (b"a--b", "a--b"), (b"%61%2Db", "a-b"), (b"A0" * 31 + b"z", "A0" * 31 + "z")],
)
def test_endpoint_names_are_decoded(raw: bytes, name: str) -> None:
    assert wire.parse(wire.SYNC, raw, {}).endpoint_name == name


def test_lengths_are_counted_in_characters() -> None:
    message = refusal({b"accept": "é".encode() * 1024})
    assert "length" not in message  # too many bytes, not too many characters; but not ASCII


def test_headers_of_others_are_ignored() -> None:
    headers = {b"x-amzn-sagemaker-unheard-of": b"\xff", b"user-agent": b"x", b"host": b"y", b"accept": b"a"}
    assert wire.parse(wire.SYNC, b"echo", headers).members == {b"accept": b"a"}


def test_the_container_gets_what_the_contract_names() -> None:
    invocation = wire.Invocation(
        wire.SYNC,
        "echo",
        {
            b"x-amzn-sagemaker-target-variant": b"v",
            b"accept": b"b/c",
            b"content-type": b"a/b",
            b"x-amzn-sagemaker-target-model": b"m.tar.gz",
        },
    )
    head = wire.render_container_request(invocation, path=b"/invocations", host=b"h:1", length=3)
    assert head == (
        b"POST /invocations HTTP/1.1\r\nHost: h:1\r\nContent-Type: a/b\r\nAccept: b/c\r\n"
        b"X-Amzn-SageMaker-Target-Model: m.tar.gz\r\n"
        b"X-Amzn-SageMaker-Forwarded-Api: InvokeEndpoint\r\nContent-Length: 3\r\n\r\n"
    )


@given(
    st.binary(max_size=80) | st.from_regex(rb"[a-zA-Z0-9](-*[a-zA-Z0-9])*", fullmatch=True),
    st.dictionaries(
        st.sampled_from([member.header for member in wire.INVOKE_ENDPOINT]), st.binary(max_size=80)
    ),
)
def test_any_bytes_are_parsed_or_refused(name: bytes, headers: dict[bytes, bytes]) -> None:
    try:
        invocation = wire.parse(wire.SYNC, name, headers)
    except ValidationError as error:
        assert error.message.split(" ")[1] == "validation"
    else:
        assert invocation.endpoint_name.isascii()
        free_text = b"x-amzn-sagemaker-enable-explanations"  # its pattern is `.*`
        assert all(value.isascii() for header, value in invocation.members.items() if header != free_text)
        assert invocation.target_variant is None or invocation.target_variant.isascii()


def test_a_new_session_given_under_both_names_comes_back_once() -> None:
    container = {b"x-amzn-sagemaker-session-id": b"old name", b"x-amzn-sagemaker-new-session-id": b"new name"}
    lines = wire.render_reply_headers(wire.SYNC, container)
    assert lines == b"X-Amzn-SageMaker-New-Session-Id: new name\r\n"


# --- InvokeEndpointAsync -----------------------------------------------------------------------------------

ASYNC_MODEL = MODELS["InvokeEndpointAsync"]
AT_MOST = "have value less than or equal to "
AT_LEAST = "have value greater than or equal to "
AN_INTEGER = "be an integer"


def test_the_asynchronous_operation_is_as_the_model_has_it() -> None:
    assert ASYNC_MODEL.http == {
        "method": "POST",
        "requestUri": "/endpoints/{EndpointName}/async-invocations",
        "responseCode": 202,
    }
    assert ASYNC_MODEL.input_shape.required_members == ["EndpointName"]
    output = ASYNC_MODEL.output_shape
    assert not output.members["InferenceId"].serialization  # in the body, and the body is JSON
    assert "payload" not in output.serialization


@pytest.mark.parametrize(
    ("name", "value", "key", "rule"),
    [
        ("InputLocation", "", "inputLocation", None),
        ("InputLocation", "s3:/bucket/key", "inputLocation", PATTERN + "^(https|s3)://([^/]+)/?(.*)$"),
        ("InputLocation", "http://a/b", "inputLocation", PATTERN + "^(https|s3)://([^/]+)/?(.*)$"),
        ("InputLocation", "s3:///key", "inputLocation", PATTERN + "^(https|s3)://([^/]+)/?(.*)$"),
        ("InputLocation", "s3://" + "x" * 1020, "inputLocation", "have length less than or equal to 1024"),
        (
            "S3OutputPathExtension",
            "s3:a",
            "s3OutputPathExtension",
            PATTERN + "^(?!s3:|https:)[a-zA-Z0-9!_.*'()/-]+$",
        ),
        (
            "S3OutputPathExtension",
            "x" * 513,
            "s3OutputPathExtension",
            "have length less than or equal to 512",
        ),
        ("Filename", "a.b.c", "filename", PATTERN + r"^(?!.*\..*\.)[a-zA-Z0-9][a-zA-Z0-9-_\.]*$"),
        ("Filename", "a/b", "filename", PATTERN + r"^(?!.*\..*\.)[a-zA-Z0-9][a-zA-Z0-9-_\.]*$"),
        ("Filename", "x" * 33, "filename", "have length less than or equal to 32"),
        ("RequestTTLSeconds", "59", "requestTTLSeconds", AT_LEAST + "60"),
        ("RequestTTLSeconds", "21601", "requestTTLSeconds", AT_MOST + "21600"),
        ("RequestTTLSeconds", "-" + "9" * 19, "requestTTLSeconds", AT_LEAST + "60"),
        ("InvocationTimeoutSeconds", "0", "invocationTimeoutSeconds", AT_LEAST + "1"),
        ("InvocationTimeoutSeconds", "3601", "invocationTimeoutSeconds", AT_MOST + "3600"),
        *(
            ("InvocationTimeoutSeconds", value, "invocationTimeoutSeconds", AN_INTEGER)
            for value in ("", "-", "+", "1.0", "1e2", "0x10", "1_0", " 1", "6 0", "ten", "\u0664", "9" * 20)
        ),
    ],
)
def test_a_broken_constraint_of_an_asynchronous_call_is_named(
    name: str, value: str, key: str, rule: str | None
) -> None:
    message = refusal({header(name): value.encode()}, operation=wire.ASYNC)
    if rule is None:
        assert message.startswith(f"2 validation errors detected: Value '' at '{key}' failed to satisfy")
    else:
        assert message == one(value, key, rule)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("InputLocation", "s3://b"),
        ("InputLocation", "s3://bucket/a key/\u00e9"),
        ("InputLocation", "https://host/a?b=c"),
        ("S3OutputPathExtension", "a/../b!_.*'()-"),
        ("S3OutputPathExtension", "s3"),
        ("Filename", "a-_."),
        ("Filename", "x" * 32),
        ("RequestTTLSeconds", "60"),
        ("RequestTTLSeconds", "21600"),
        ("InvocationTimeoutSeconds", "+1"),
        ("InvocationTimeoutSeconds", "0003600"),
    ],
)
def test_values_at_the_edges_of_an_asynchronous_call(name: str, value: str) -> None:
    members = {header(name): value.encode()}
    assert wire.parse(wire.ASYNC, b"echo", members).members == members


def test_a_number_of_thousands_of_digits_is_shown_by_its_beginning() -> None:
    message = refusal({header("RequestTTLSeconds"): b"1" * 20_000}, operation=wire.ASYNC)
    assert message == one("1" * 21, "requestTTLSeconds", AN_INTEGER)


@given(
    st.dictionaries(
        st.sampled_from(sorted(set(ASYNC_MODEL.input_shape.members) - OUTSIDE_THE_TABLE)),
        st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=70)
        | st.text("as3:/.-htp_0", max_size=12)
        | st.from_regex(r"(s3|https)://[a-z/.]+|[a-z0-9]+\.?[a-z0-9_-]*|[+-]?[0-9]{1,6}", fullmatch=True),
        max_size=4,
    )
)
def test_an_asynchronous_call_is_judged_as_the_model_says(members: dict[str, str]) -> None:
    shapes = ASYNC_MODEL.input_shape.members
    headers = {shapes[name].serialization["name"].lower().encode(): v.encode() for name, v in members.items()}
    if all(_satisfies(shapes[name], value) for name, value in members.items()):
        assert wire.parse(wire.ASYNC, b"echo", headers).members == headers
    else:
        assert "failed to satisfy constraint" in refusal(headers, operation=wire.ASYNC)


def _satisfies(shape: Shape, value: str) -> bool:
    rules = shape.metadata
    if shape.type_name == "integer":
        return bool(re.fullmatch("[+-]?[0-9]+", value)) and rules["min"] <= int(value) <= rules["max"]
    fits = rules.get("min", 0) <= len(value) <= rules["max"]
    return fits and bool(patterns.compiled(rules["pattern"]).fullmatch(value))


def test_an_input_location_is_utf_8() -> None:
    header = b"x-amzn-sagemaker-inputlocation"
    for location in ("s3://in/ü.json", "s3://in/" + "日" * 1016):
        members = wire.parse(wire.ASYNC, b"later", {header: location.encode()}).members
        assert members == {header: location.encode()}
    too_long = refusal({header: ("s3://in/" + "日" * 1017).encode()}, operation=wire.ASYNC)
    assert "Member must have length less than or equal to 1024" in too_long
    latin_1 = refusal({header: "s3://in/ü.json".encode("latin-1")}, operation=wire.ASYNC)
    assert latin_1 == one(
        "s3://in/\ufffd.json",
        "inputLocation",
        "satisfy regular expression pattern: ^(https|s3)://([^/]+)/?(.*)$",
    )
