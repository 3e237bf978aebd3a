"""Who signed this? Everything botocore signs is accepted, and each way to be wrong is refused in AWS's words."""

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import formatdate
from unittest import mock

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from moorage.auth.credentials import AccessKey
from moorage.auth.verifier import Verifier
from moorage.errors import FrontLayerError, ServiceError

KEY = AccessKey(
    access_key_id="AKIDEXAMPLE",
    secret_access_key="wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    account_id="123456789012",
    principal_arn="arn:aws:iam::123456789012:root",
    user_id="123456789012",
)
NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
STAMP = "20150830T123600Z"
BODY = b'{"x":1}'
MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access "
    "Key and signing method. Consult the service documentation for details."
)


class Clock:
    def __init__(self) -> None:
        self.now = NOW.timestamp()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def verifier(clock: Clock) -> Verifier:
    return new_verifier(clock)


def new_verifier(clock: Callable[[], float]) -> Verifier:
    return Verifier({KEY.access_key_id: KEY}, regions=frozenset(("us-east-1",)), clock=clock)


class Sent:
    """A request as the gateway sees it, to be tampered with."""

    def __init__(
        self,
        target: str = "/endpoints/echo/invocations",
        headers: Mapping[str, str] | None = None,
        *,
        body: bytes = BODY,
        service: str = "sagemaker",
        at: datetime = NOW,
        key: AccessKey = KEY,
        region: str = "us-east-1",
    ) -> None:
        request = AWSRequest("POST", "http://host:8080" + target, headers=dict(headers or {}), data=body)
        for_s3 = service == "s3" and "X-Amz-Content-SHA256" not in request.headers
        signer = (S3SigV4Auth if for_s3 else SigV4Auth)(
            Credentials(key.access_key_id, key.secret_access_key), service, region
        )
        with mock.patch("botocore.auth.get_current_datetime", return_value=at):
            signer.add_auth(request)
        self.method = b"POST"
        self.target = target.encode()
        self.headers = {b"host": b"host:8080"}
        for name, value in request.headers.items():
            self.headers[name.lower().encode()] = value if isinstance(value, bytes) else value.encode()
        self.body = body

    @property
    def authorization(self) -> str:
        return self.headers[b"authorization"].decode("latin-1")

    @authorization.setter
    def authorization(self, value: str) -> None:
        self.headers[b"authorization"] = value.encode("latin-1")

    def verified_by(self, verifier: Verifier, *, secure: bool = False) -> AccessKey:
        claim = verifier.claim(self.headers, self.target, secure=secure)
        return verifier.verify(
            claim, self.method, self.target, self.headers, hashlib.sha256(self.body).hexdigest()
        )

    def refused_by(self, verifier: Verifier) -> tuple[str, str]:
        """The error's code and message."""
        with pytest.raises(ServiceError) as caught:
            self.verified_by(verifier)
        assert isinstance(caught.value, FrontLayerError)
        return caught.value.code, caught.value.message


# --- accepted ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "application/json"},
        {"Content-Type": "application/json", "Accept": "text/csv"},
        {"X-Amzn-SageMaker-Custom-Attributes": "a=1,  b=2   c", "Content-Type": "a/b"},
        {"X-Amzn-SageMaker-Custom-Attributes": "  padded  "},
        {"X-Amzn-SageMaker-Custom-Attributes": "naïve – €"},
        {"X-Amzn-SageMaker-Inference-Id": ""},
        {"X-Amz-Content-SHA256": hashlib.sha256(BODY).hexdigest()},
    ],
)
@pytest.mark.parametrize(
    "target",
    [
        "/endpoints/echo/invocations",
        "/endpoints/my%20ep/invocations",
        "/endpoints/bad%20name%21%2Fx/invocations",
        "/endpoints//invocations",
        "/endpoints/%E2%82%AC/invocations",
        "/prefix/endpoints/echo/invocations",
        "/endpoints/echo/invocations?a=1&a1=2&a-b=3&b=&c&d=%20",
        "/",
    ],
)
def test_what_botocore_signs_is_accepted(verifier: Verifier, target: str, headers: dict[str, str]) -> None:
    for _ in range(2):  # judged anew, and as seen before
        assert Sent(target, headers).verified_by(verifier) is KEY


@pytest.mark.parametrize("body", [b"", b"x", bytes(range(256)) * 10])
def test_any_body_is_accepted(verifier: Verifier, body: bytes) -> None:
    assert Sent(body=body).verified_by(verifier) is KEY


def test_a_date_header_may_stand_in_for_x_amz_date(verifier: Verifier) -> None:
    sent = Sent(headers={"Date": "whatever"})
    assert b"x-amz-date" not in sent.headers
    assert sent.headers[b"date"] == b"Sun, 30 Aug 2015 12:36:00 -0000"
    assert sent.verified_by(verifier) is KEY
    assert b"date" in sent.headers[b"authorization"]


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 01 Jan 0001 00:00:00 +2359", "\xff", formatdate(0)])
def test_a_date_header_of_another_time_or_form_is_refused(verifier: Verifier, date: str) -> None:
    sent = Sent(headers={"Date": "whatever"})
    sent.headers[b"date"] = date.encode("latin-1")
    code, _ = sent.refused_by(verifier)
    assert code in ("IncompleteSignatureException", "InvalidSignatureException")


def test_unsigned_headers_do_not_matter(verifier: Verifier) -> None:
    sent = Sent()
    sent.headers |= {b"user-agent": b"x", b"accept-encoding": b"gzip", b"x-new": b"\xff"}
    assert sent.verified_by(verifier) is KEY


def test_spaces_after_commas_do_not_matter(verifier: Verifier) -> None:
    for comma in (",", " ,  "):
        sent = Sent()
        sent.authorization = sent.authorization.replace(", ", comma)
        assert sent.verified_by(verifier) is KEY


def test_a_header_signed_twice_over_by_older_clients_counts(verifier: Verifier) -> None:
    """Older Java clients sign user-agent; then it must not change."""
    sent = Sent()
    with mock.patch("botocore.auth.SIGNED_HEADERS_BLACKLIST", ["expect"]):
        sent = Sent(headers={"User-Agent": "aws-sdk-java/1.11"})
    assert "user-agent" in sent.authorization
    assert sent.verified_by(verifier) is KEY
    sent.headers[b"user-agent"] = b"proxy"
    assert sent.refused_by(verifier)[0] == "InvalidSignatureException"


# --- refused: what was signed is not what came ----------------------------------------------------------------


@pytest.mark.parametrize("part", ["method", "target", "body", "headers", "signature"])
def test_each_byte_of_what_is_signed_counts(verifier: Verifier, part: str) -> None:
    headers = {"Content-Type": "application/json", "X-Amzn-SageMaker-Custom-Attributes": "a=1"}

    def sent() -> Sent:
        return Sent("/endpoints/my%20ep/invocations?a=1&b=2", headers)

    assert sent().verified_by(verifier) is KEY
    tampered = []
    if part == "headers":
        for name, value in sent().headers.items():
            if name not in (b"authorization", b"x-amz-date"):
                for at in range(len(value)):
                    one = sent()
                    one.headers[name] = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
                    tampered.append(one)
    elif part == "signature":
        start = sent().authorization.index("Signature=") + len("Signature=")
        for at in range(64):
            one = sent()
            text = one.authorization
            one.authorization = (
                text[: start + at] + ("0" if text[start + at] != "0" else "1") + text[start + at + 1 :]
            )
            tampered.append(one)
    else:
        value = getattr(sent(), part)
        for at in range(len(value)):
            one = sent()
            setattr(one, part, value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :])
            tampered.append(one)
    assert tampered
    for one in tampered:
        code, message = one.refused_by(verifier)
        assert code == "InvalidSignatureException"
        assert message.startswith(MISMATCH)


def test_each_byte_of_the_credential_and_the_signed_headers_counts(verifier: Verifier) -> None:
    text = Sent().authorization
    Sent().verified_by(verifier)  # known by now
    for at in range(len("AWS4-HMAC-SHA256 "), text.index("Signature=")):
        if text[at] in " ,":
            continue
        sent = Sent()
        sent.authorization = text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]
        code, _ = sent.refused_by(verifier)
        assert code in (
            "InvalidSignatureException",
            "IncompleteSignatureException",
            "UnrecognizedClientException",
        )


@pytest.mark.parametrize(
    "change",
    [
        lambda sent: sent.headers.pop(b"content-type"),
        lambda sent: sent.headers.update({b"x-amz-date": b"20150830T123601Z"}),
        lambda sent: setattr(sent, "target", sent.target + b"?x=1"),
        lambda sent: setattr(sent, "target", sent.target + b"/"),
        lambda sent: setattr(sent, "body", b""),
        lambda sent: setattr(sent, "authorization", sent.authorization[:-64]),
        lambda sent: setattr(sent, "authorization", sent.authorization + "0"),
        lambda sent: setattr(sent, "authorization", sent.authorization[:-64] + "\xff" * 64),
        lambda sent: setattr(sent, "authorization", sent.authorization.replace("host;", "host;x-none;")),
    ],
)
def test_tampering_is_refused(verifier: Verifier, change: Callable[[Sent], object]) -> None:
    sent = Sent(headers={"Content-Type": "a/b"})
    change(sent)
    assert sent.refused_by(verifier)[0] in ("InvalidSignatureException", "IncompleteSignatureException")


def test_a_refusal_shows_what_should_have_been_signed(verifier: Verifier) -> None:
    sent = Sent()
    sent.target = b"/endpoints/other/invocations"
    code, message = sent.refused_by(verifier)
    body_hash = hashlib.sha256(BODY).hexdigest()
    canonical = (
        f"POST\n/endpoints/other/invocations\n\nhost:host:8080\nx-amz-date:{STAMP}\n\n"
        f"host;x-amz-date\n{body_hash}"
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    assert (code, message) == (
        "InvalidSignatureException",
        f"{MISMATCH}\n\nThe Canonical String for this request should have been\n'{canonical}'\n\n"
        "The String-to-Sign should have been\n"
        f"'AWS4-HMAC-SHA256\n{STAMP}\n20150830/us-east-1/sagemaker/aws4_request\n{digest}'\n",
    )


def test_a_wrong_secret_is_refused(verifier: Verifier) -> None:
    other = AccessKey(
        access_key_id=KEY.access_key_id,
        secret_access_key="guess",
        account_id="1",
        principal_arn="",
        user_id="",
    )
    assert Sent(key=other).refused_by(verifier)[1].startswith(MISMATCH)
    Sent().verified_by(verifier)
    assert Sent(key=other).refused_by(verifier)[1].startswith(MISMATCH)


# --- refused by the head: the texts of AWS's front layer ----------------------------------------------------------


def replaced(old: str, new: str) -> Callable[[Sent], None]:
    def change(sent: Sent) -> None:
        assert old in sent.authorization
        sent.authorization = sent.authorization.replace(old, new)

    return change


def authorization(value: str) -> Callable[[Sent], None]:
    return lambda sent: setattr(sent, "authorization", value)


def no_date(sent: Sent) -> None:
    del sent.headers[b"x-amz-date"]


def dated(value: str) -> Callable[[Sent], None]:
    return lambda sent: sent.headers.update({b"x-amz-date": value.encode()})


def no_authorization(sent: Sent) -> None:
    del sent.headers[b"authorization"]


def with_token(sent: Sent) -> None:
    sent.headers[b"x-amz-security-token"] = b"token"


def with_signed_token(sent: Sent) -> None:
    with_token(sent)
    sent.authorization = sent.authorization.replace(";x-amz-date", ";x-amz-date;x-amz-security-token")


NO_CREDENTIAL = "Authorization header requires 'Credential' parameter."
NO_SIGNATURE = "Authorization header requires 'Signature' parameter."
NO_SIGNED_HEADERS = "Authorization header requires 'SignedHeaders' parameter."
NO_DATE = "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."
REJECTED = [
    (no_authorization, "MissingAuthenticationToken", "Missing Authentication Token"),
    (authorization(""), "MissingAuthenticationToken", "Missing Authentication Token"),
    (
        replaced("AKIDEXAMPLE", "AKIDUNKNOWN"),
        "UnrecognizedClient",
        "The security token included in the request is invalid.",
    ),
    (
        with_token,
        "InvalidSignature",
        "'X-Amz-Security-Token' must be a 'SignedHeader' in the AWS Authorization.",
    ),
    (
        with_signed_token,
        "UnrecognizedClient",
        "The security token included in the request is invalid.",
    ),
    (
        replaced("us-east-1", "eu-west-1"),
        "InvalidSignature",
        "Credential should be scoped to a valid region, not 'eu-west-1'. ",
    ),
    (
        replaced("aws4_request", "aws5_request"),
        "InvalidSignature",
        "Credential should be scoped with a valid terminator: 'aws4_request', not 'aws5_request'. ",
    ),
    (
        replaced("/20150830/", "/20150829/"),
        "InvalidSignature",
        "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
        f"'20150829' != '20150830', from '{STAMP}'.",
    ),
    (
        authorization("AWS4-HMAC-SHA256 X=1"),
        "IncompleteSignature",
        f"{NO_CREDENTIAL} {NO_SIGNATURE} {NO_SIGNED_HEADERS} Authorization=AWS4-HMAC-SHA256 X=1",
    ),
    (
        authorization("AWS4-HMAC-SHA256 Credential=a,Signature=b"),
        "IncompleteSignature",
        f"{NO_SIGNED_HEADERS} Authorization=AWS4-HMAC-SHA256 Credential=a,Signature=b",
    ),
    (
        authorization("AWS4-HMAC-SHA256 Credential=,Signature=b,SignedHeaders=c"),
        "IncompleteSignature",
        f"{NO_CREDENTIAL} Authorization=AWS4-HMAC-SHA256 Credential=,Signature=b,SignedHeaders=c",
    ),
    (
        authorization("AWS4-HMAC-SHA256 abc"),
        "IncompleteSignature",
        "'abc' not a valid key=value pair (missing equal-sign) in Authorization header: 'AWS4-HMAC-SHA256 abc'.",
    ),
    (
        authorization("Bearer abc"),
        "IncompleteSignature",
        "'abc' not a valid key=value pair (missing equal-sign) in Authorization header: 'Bearer abc'.",
    ),
    (
        dated("Sun, 30 Aug 2015 12:36:00 GMT"),
        "IncompleteSignature",
        "Date must be in ISO-8601 'basic format'. Got 'Sun, 30 Aug 2015 12:36:00 GMT'. "
        "See http://en.wikipedia.org/wiki/ISO_8601",
    ),
    (
        dated("20150830T12360Z"),
        "IncompleteSignature",
        "Date must be in ISO-8601 'basic format'. Got '20150830T12360Z'. See http://en.wikipedia.org/wiki/ISO_8601",
    ),
    (
        replaced("AWS4-HMAC-SHA256 ", "AWS4-ECDSA-P256-SHA256 "),
        "IncompleteSignature",
        "Unsupported AWS 'algorithm': 'AWS4-ECDSA-P256-SHA256' (only AWS4-HMAC-SHA256 for now). ",
    ),
    (
        replaced("/sagemaker/", "/"),
        "IncompleteSignature",
        "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, "
        "got 'AKIDEXAMPLE/20150830/us-east-1/aws4_request'",
    ),
    (
        replaced("=host;", "="),
        "InvalidSignature",
        "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.",
    ),
]


@pytest.mark.parametrize(("change", "code", "message"), REJECTED)
@pytest.mark.parametrize("seen", [False, True], ids=["new", "seen before"])
def test_refused_in_the_words_of_aws(
    verifier: Verifier, change: Callable[[Sent], object], code: str, message: str, *, seen: bool
) -> None:
    if seen:
        Sent().verified_by(verifier)
    sent = Sent()
    change(sent)
    assert sent.refused_by(verifier) == (f"{code}Exception", message)


def test_without_any_date(verifier: Verifier) -> None:
    sent = Sent()
    no_date(sent)
    assert sent.refused_by(verifier) == (
        "IncompleteSignatureException",
        f"{NO_DATE} Authorization={sent.authorization}",
    )
    sent.headers |= {b"x-amz-date": b"", b"date": b""}
    assert sent.refused_by(verifier)[0] == "IncompleteSignatureException"


def test_the_checks_come_in_the_order_of_aws(verifier: Verifier) -> None:
    """Several faults at once: each is reported only when the ones before it are mended."""
    sent = Sent()
    sent.authorization = "X Credential=k/1/eu/s, SignedHeaders=date, Signature=0"
    sent.headers[b"x-amz-date"] = b"long ago"
    sent.headers[b"x-amz-security-token"] = b"token"
    assert "ISO-8601" in sent.refused_by(verifier)[1]
    sent.headers[b"x-amz-date"] = b"20150829T000000Z"
    assert "Signature expired" in sent.refused_by(verifier)[1]
    sent.headers[b"x-amz-date"] = STAMP.encode()
    assert "'Host'" in sent.refused_by(verifier)[1]
    sent.authorization = sent.authorization.replace("=date", "=host")
    assert "algorithm" in sent.refused_by(verifier)[1]
    sent.authorization = sent.authorization.replace("X ", "AWS4-HMAC-SHA256 ")
    assert "exactly 5" in sent.refused_by(verifier)[1]
    sent.authorization = sent.authorization.replace("/s,", "/sagemaker/t,")
    assert "terminator" in sent.refused_by(verifier)[1]
    sent.authorization = sent.authorization.replace("/t,", "/aws4_request,")
    assert "region" in sent.refused_by(verifier)[1]
    sent.authorization = sent.authorization.replace("/eu/", "/us-east-1/")
    assert "Date in Credential scope" in sent.refused_by(verifier)[1]
    sent.authorization = sent.authorization.replace("/1/", "/20150830/")
    assert "'X-Amz-Security-Token'" in sent.refused_by(verifier)[1]
    sent.authorization = sent.authorization.replace("=host", "=host;x-amz-security-token")
    assert sent.refused_by(verifier)[0] == "UnrecognizedClientException"
    sent.authorization = sent.authorization.replace("=k/", "=AKIDEXAMPLE/")
    assert sent.refused_by(verifier)[0] == "UnrecognizedClientException"
    del sent.headers[b"x-amz-security-token"]
    assert sent.refused_by(verifier)[1].startswith(MISMATCH)


# --- time --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", [False, True], ids=["new", "seen before"])
@pytest.mark.parametrize(("service", "minutes"), [("sagemaker", 5), ("s3", 15)])
def test_the_clock_may_be_off_by_minutes(
    verifier: Verifier, clock: Clock, service: str, minutes: int, *, seen: bool
) -> None:
    if seen:
        Sent(service=service).verified_by(verifier)
    for off in (minutes * 60, -minutes * 60):
        clock.now = NOW.timestamp() + off
        assert Sent(service=service).verified_by(verifier) is KEY
    clock.now = NOW.timestamp() + minutes * 60 + 1
    assert Sent(service=service).refused_by(verifier) == (
        "InvalidSignatureException",
        f"Signature expired: {STAMP} is now earlier than 20150830T123601Z "
        f"(20150830T12{36 + minutes}01Z - {minutes} min.)",
    )
    clock.now = NOW.timestamp() - minutes * 60 - 1
    assert Sent(service=service).refused_by(verifier) == (
        "InvalidSignatureException",
        f"Signature not yet current: {STAMP} is still later than 20150830T123559Z "
        f"(20150830T12{35 - minutes}59Z + {minutes} min.)",
    )


def test_keys_change_with_the_day(verifier: Verifier, clock: Clock) -> None:
    days = [datetime(2015, 8, day, hour, 59, 59, tzinfo=UTC) for day in (30, 31) for hour in (0, 23)]
    for at in days:
        clock.now = at.timestamp()
        assert Sent(at=at).verified_by(verifier) is KEY
    # Around midnight, yesterday's key is still good, in any order.
    evening = datetime(2015, 8, 31, 23, 59, tzinfo=UTC)
    morning = datetime(2015, 9, 1, 0, 1, tzinfo=UTC)
    clock.now = morning.timestamp()
    for at in (morning, evening, morning, evening):
        assert Sent(at=at).verified_by(verifier) is KEY
    # But not a day later, nor mixed with another day's time.
    mixed = Sent(at=evening)
    mixed.headers[b"x-amz-date"] = b"20150901T000100Z"
    assert "Date in Credential scope" in mixed.refused_by(verifier)[1]
    assert "Signature expired" in Sent(at=days[0]).refused_by(verifier)[1]


def test_many_clients_of_many_kinds(clock: Clock) -> None:
    """More than are remembered."""
    verifier = new_verifier(clock)
    for number in range(4200):
        if number % 60 == 0:
            assert Sent().verified_by(verifier) is KEY
        sent = Sent()
        sent.authorization = sent.authorization.replace("host;", f"host;x-{number};")
        sent.refused_by(verifier)
    assert Sent().verified_by(verifier) is KEY


# --- the payload's hash --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "declared", "accepted"),
    [
        ("sagemaker", hashlib.sha256(BODY).hexdigest(), True),
        ("s3", hashlib.sha256(BODY).hexdigest(), True),
        ("s3", "UNSIGNED-PAYLOAD", True),
        ("s3", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", True),
        ("s3", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", True),
        ("sagemaker", hashlib.sha256(b"other").hexdigest(), False),
        ("s3", hashlib.sha256(b"other").hexdigest(), False),
        ("sagemaker", hashlib.sha256(BODY).hexdigest().upper(), False),
        ("sagemaker", "STREAMING-AWS4-HMAC-SHA256-EVENTS", False),
        ("sagemaker", "", False),
        ("sagemaker", "x", False),
        ("sagemaker", "z" * 64, False),
        ("s3", "z" * 64, False),
        ("s3", "x", False),
        ("s3", "", False),
    ],
)
def test_a_declared_hash(verifier: Verifier, service: str, declared: str, *, accepted: bool) -> None:
    sent = Sent(headers={"X-Amz-Content-SHA256": declared}, service=service)
    if accepted:
        assert sent.verified_by(verifier) is KEY
    else:
        assert sent.refused_by(verifier)[0] in ("InvalidSignatureException", "MalformedHttpRequestException")


UNSIGNED = {"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}


@pytest.mark.parametrize("seen", [False, True], ids=["new", "seen before"])
@pytest.mark.parametrize("service", ["sagemaker", "sts"])
def test_unsigned_payload_is_refused_for_invocations(verifier: Verifier, service: str, *, seen: bool) -> None:
    if seen:
        hashed = {"X-Amz-Content-SHA256": hashlib.sha256(BODY).hexdigest()}
        Sent(headers=hashed, service=service).verified_by(verifier)
    assert Sent(headers=UNSIGNED, service=service).refused_by(verifier) == (
        "InvalidSignatureException",
        "UNSIGNED-PAYLOAD in 'x-amz-content-sha256' is not accepted without TLS: sign the request's body, or "
        "start the server with the setting allow_unsigned_payload.",
    )


def test_unsigned_payload_is_accepted_for_invocations_by_tls_or_by_the_setting(clock: Clock) -> None:
    by_tls = new_verifier(clock)
    lenient = Verifier({KEY.access_key_id: KEY}, allow_unsigned_payload=True, clock=clock)
    for _ in range(2):  # judged anew, and as seen before
        assert Sent(headers=UNSIGNED).verified_by(by_tls, secure=True) is KEY
        assert Sent(headers=UNSIGNED).verified_by(lenient) is KEY
        assert Sent(headers=UNSIGNED).refused_by(by_tls)[0] == "InvalidSignatureException"
    changed = Sent(headers=UNSIGNED)
    changed.body = b"any other"
    assert changed.verified_by(lenient) is KEY
    assert Sent(headers=UNSIGNED, service="sts").refused_by(lenient)[0] == "InvalidSignatureException"


def test_a_hash_that_was_not_signed_does_not_loosen_anything(verifier: Verifier) -> None:
    for declared in (b"UNSIGNED-PAYLOAD", hashlib.sha256(b"tampered").hexdigest().encode()):
        sent = Sent()
        sent.headers[b"x-amz-content-sha256"] = declared
        sent.body = b"tampered"
        assert sent.refused_by(verifier)[0] == "InvalidSignatureException"


# --- anything at all ------------------------------------------------------------------------------------------


@given(
    st.binary(max_size=120),
    st.sampled_from(
        [
            b"",
            b"AWS4-HMAC-SHA256 ",
            b"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/sagemaker/aws4_request,",
            b"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/s3/aws4_request,"
            b"SignedHeaders=host,Signature=",
        ]
    ),
    st.sampled_from([STAMP.encode(), b"20150830T123601Z", b"\xff", b""]),
    st.one_of(st.none(), st.binary(max_size=70)),
)
def test_garbage_is_refused_and_nothing_else(
    garbage: bytes, start: bytes, date: bytes, payload_hash: bytes | None
) -> None:
    sent = Sent()
    sent.headers |= {b"authorization": start + garbage, b"x-amz-date": date}
    if payload_hash is not None:
        sent.headers[b"x-amz-content-sha256"] = payload_hash
    sent.refused_by(new_verifier(Clock()))


@given(
    st.dictionaries(
        st.sampled_from([b"authorization", b"x-amz-date", b"date", b"host"]), st.binary(max_size=40)
    )
)
def test_any_headers_are_refused(headers: dict[bytes, bytes]) -> None:
    with pytest.raises(FrontLayerError):
        new_verifier(Clock()).claim(headers)
