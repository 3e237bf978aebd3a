"""Each way in which a signature can be wrong, in both forms, for SageMaker and for S3: code, status and message.

The requests go through a gateway. Its clock is fixed, and neither a container nor the S3 may hear of any of them.
"""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from unittest import mock
from urllib.parse import quote
from xml.etree import ElementTree

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from moorage.auth.verifier import Verifier
from tests.gateway.harness import KEY, REGION, ContainerConnection, Message, head, start_gateway

NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
HOST = "localhost:8080"
PATHS = {"sagemaker": "/endpoints/echo/invocations", "s3": "/bucket/key", "ec2": "/bucket/key"}
INCOMPLETE, INVALID = "IncompleteSignatureException", "InvalidSignatureException"
MALFORMED, QUERY_ERROR = "AuthorizationHeaderMalformed", "AuthorizationQueryParametersError"
S3_MALFORMED = "The authorization header is malformed; "
S3_CREDENTIAL = "Error parsing the X-Amz-Credential parameter; "
S3_MISSING = (
    "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, "
    "X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters."
)
NO_DATE = "AWS authentication requires a valid Date or x-amz-date header"
NOT_SIGNED = "There were headers present in the request which were not signed"
SKEWED = "The difference between the request time and the current time is too large."
NO_MATCH = "The request signature we calculated does not match the signature you provided. "
FORM = 'the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".'
PARTS = "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got "
ISO = "See http://en.wikipedia.org/wiki/ISO_8601"

Answer = tuple[int, str, str]
"""Status, code, and the message or (with …) how it begins."""


class Attempt:
    """A signed request, to be spoilt."""

    def __init__(
        self,
        service: str,
        *,
        presigned: bool = False,
        method: str = "",
        at: datetime = NOW,
        secret: str = KEY.secret_access_key,
        region: str = REGION,
        expires: int = 3600,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> None:
        method = method or ("PUT" if service == "s3" else "POST")
        self.service, self.method, self.body = service, method, body
        request = AWSRequest(method, f"http://{HOST}{PATHS[service]}", headers=headers, data=body)
        credentials = Credentials(KEY.access_key_id, secret)
        signer: SigV4Auth
        if presigned:
            kind = S3SigV4QueryAuth if service == "s3" else SigV4QueryAuth
            signer = kind(credentials, service, region, expires=expires)
        else:
            declared = headers is not None and "X-Amz-Content-SHA256" in headers
            signer = (S3SigV4Auth if service == "s3" and not declared else SigV4Auth)(
                credentials, service, region
            )
        with mock.patch("botocore.auth.get_current_datetime", return_value=at):
            signer.add_auth(request)
        self.target = request.url.removeprefix(f"http://{HOST}")
        self.headers = {"Host": HOST, **dict(request.headers.items()), "Content-Length": str(len(body))}

    def replace(self, old: str, new: str) -> "Attempt":
        """In the signature's parameters, wherever those are."""
        if "Authorization" in self.headers:
            assert old in self.headers["Authorization"]
            self.headers["Authorization"] = self.headers["Authorization"].replace(old, new)
        else:
            assert quote(old, safe="=&") in self.target
            self.target = self.target.replace(quote(old, safe="=&"), quote(new, safe="=&"))
        return self

    def without(self, name: str) -> "Attempt":
        """Without a parameter in the query."""
        self.target, count = re.subn(rf"(?<=[?&]){name}=[^&]*&?", "", self.target)
        assert count == 1
        return self

    def with_header(self, name: str, value: str | None) -> "Attempt":
        self.headers.pop(name, None)
        if value is not None:
            self.headers[name] = value
        return self

    async def answer(self) -> tuple[Answer, dict[str, str]]:
        """What it is answered, and the other elements of S3's answer."""
        seen: list[Message] = []

        async def listen(connection: ContainerConnection) -> None:
            seen.append(await connection.request())
            await connection.reply(b"reached")

        async with start_gateway() as gateway:
            gateway.front.verifier = verifier()
            await gateway.upstream(gateway.settings.s3_socket, listen)
            gateway.route(await gateway.container(listen))
            reply = await gateway.call(head(self.target, self.headers, method=self.method) + self.body)
            if reply.body == b"reached":
                return (reply.status, "", ""), {}
            assert not seen
        if reply.headers["content-type"] == "application/xml":
            error = {item.tag: item.text or "" for item in ElementTree.fromstring(reply.body)}
            assert error.pop("RequestId") == reply.headers["x-amzn-requestid"]
            return (reply.status, error.pop("Code"), error.pop("Message")), error
        assert reply.headers["content-type"] == "application/json"
        return (reply.status, reply.headers["x-amzn-errortype"], json.loads(reply.body)["message"]), {}


def verifier() -> Verifier:
    return Verifier({KEY.access_key_id: KEY}, regions=frozenset((REGION,)), clock=NOW.timestamp)


def matches(answer: Answer, expected: Answer) -> bool:
    status, code, message = expected
    begins = answer[2].startswith(message[:-1]) if message.endswith("…") else answer[2] == message
    return answer[:2] == (status, code) and begins


Spoil = Callable[[str], Attempt]


def header(change: Callable[[Attempt], object], **options: object) -> Spoil:
    def spoil(service: str) -> Attempt:
        attempt = Attempt(service, **options)  # type: ignore[arg-type]
        change(attempt)
        return attempt

    return spoil


def query(change: Callable[[Attempt], object], **options: object) -> Spoil:
    return header(change, presigned=True, **options)


def authorization(value: str) -> Callable[[Attempt], object]:
    def change(attempt: Attempt) -> None:
        attempt.headers["Authorization"] = value.replace("SERVICE", attempt.service)

    return change


def credential(value: str) -> Callable[[Attempt], object]:
    return lambda attempt: attempt.replace(
        f"AKIDEXAMPLE/20150830/us-east-1/{attempt.service}/aws4_request",
        value.replace("SERVICE", attempt.service),
    )


def nothing(attempt: Attempt) -> None:
    """Signed wrong already."""


SCOPE = "access/20250912/us-east-1/SERVICE/aws4_request"
IN_HEADER: dict[str, tuple[Spoil, Answer, Answer]] = {
    # name: what is done, what SageMaker answers, what S3 answers
    "no authorization": (
        header(lambda attempt: attempt.with_header("Authorization", None)),
        (403, "MissingAuthenticationTokenException", "Missing Authentication Token"),
        (403, "AccessDenied", "Access Denied"),
    ),
    "invalid header": (
        header(authorization("invalid_header")),
        (
            403,
            INCOMPLETE,
            "'' not a valid key=value pair (missing equal-sign) in Authorization header: 'inva…",
        ),
        (400, "InvalidArgument", "Authorization header is invalid -- one and only one ' ' (space) required."),
    ),
    "unsupported algorithm": (
        header(lambda attempt: attempt.replace("AWS4-HMAC-SHA256", "AWS2-HMAC-SHA1")),
        (403, INCOMPLETE, "Unsupported AWS 'algorithm': 'AWS2-HMAC-SHA1' (only AWS4-HMAC-SHA256 for now). "),
        (400, "InvalidArgument", "Unsupported Authorization Type"),
    ),
    "signature version 2": (
        header(authorization("AWS AKIDEXAMPLE:seed")),
        (403, INCOMPLETE, "'AKIDEXAMPLE:seed' not a valid key=value pair…"),
        (
            400,
            "InvalidRequest",
            "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
        ),
    ),
    "two components": (
        header(authorization(f"AWS4-HMAC-SHA256 Credential={SCOPE},Signature=5f")),
        (403, INCOMPLETE, "Authorization header requires 'SignedHeaders' parameter. Authorization=AWS4…"),
        (
            400,
            MALFORMED,
            S3_MALFORMED
            + "the authorization header requires three components: Credential, SignedHeaders, and Signature.",
        ),
    ),
    "malformed component": (
        header(
            authorization(f"AWS4-HMAC-SHA256 Credential={SCOPE},SignedHeaders-Content-Length,Signature=5f")
        ),
        (
            403,
            INCOMPLETE,
            "'SignedHeaders-Content-Length' not a valid key=value pair (missing equal-sign) in…",
        ),
        (
            400,
            MALFORMED,
            S3_MALFORMED + 'the authorization component "SignedHeaders-Content-Length" is malformed.',
        ),
    ),
    "no credential": (
        header(authorization("AWS4-HMAC-SHA256 missing=a,SignedHeaders=host,Signature=5f")),
        (403, INCOMPLETE, "Authorization header requires 'Credential' parameter. Authorization=AWS4…"),
        (400, MALFORMED, S3_MALFORMED + "missing Credential."),
    ),
    "no signed headers": (
        header(authorization(f"AWS4-HMAC-SHA256 Credential={SCOPE},missing=host,Signature=5f")),
        (403, INCOMPLETE, "Authorization header requires 'SignedHeaders' parameter. Authorization=AWS4…"),
        (400, MALFORMED, S3_MALFORMED + "missing SignedHeaders."),
    ),
    "no signature": (
        header(authorization(f"AWS4-HMAC-SHA256 Credential={SCOPE},SignedHeaders=host,missing=5f")),
        (403, INCOMPLETE, "Authorization header requires 'Signature' parameter. Authorization=AWS4…"),
        (400, MALFORMED, S3_MALFORMED + "missing Signature."),
    ),
    "malformed credential": (
        header(credential("access/32234/us-east-1/SERVICE/extra/things")),
        (403, INCOMPLETE, PARTS + "'access/32234/us-east-1/…"),
        (400, MALFORMED, S3_MALFORMED + FORM),
    ),
    "wrong terminator": (
        header(credential("access/32234/us-east-1/SERVICE/aws_request")),
        (
            403,
            INVALID,
            "Credential should be scoped with a valid terminator: 'aws4_request', not 'aws_request'. ",
        ),
        (
            400,
            MALFORMED,
            S3_MALFORMED + 'incorrect terminal "aws_request". This endpoint uses "aws4_request".',
        ),
    ),
    "wrong region": (
        header(nothing, region="us-west-1"),
        (403, INVALID, "Credential should be scoped to a valid region, not 'us-west-1'. "),
        (400, MALFORMED, S3_MALFORMED + "the region 'us-west-1' is wrong; expecting 'us-east-1'"),
    ),
    "no date in the credential": (
        header(credential("access/3223423234/us-east-1/SERVICE/aws4_request")),
        (
            403,
            INVALID,
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: …",
        ),
        (
            400,
            MALFORMED,
            S3_MALFORMED + 'incorrect date format "3223423234". '
            'This date in the credential must be in the format "yyyyMMdd".',
        ),
    ),
    "another date in the credential": (
        header(credential("AKIDEXAMPLE/20150829/us-east-1/SERVICE/aws4_request")),
        (
            403,
            INVALID,
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '20150829' != "
            "'20150830', from '20150830T123600Z'.",
        ),
        (
            400,
            MALFORMED,
            S3_MALFORMED
            + 'Invalid credential date "20150829". This date is not the same as X-Amz-Date: "20150830".',
        ),
    ),
    "a future date": (
        header(nothing, at=NOW + timedelta(days=5)),
        (
            403,
            INVALID,
            "Signature not yet current: 20150904T123600Z is still later than 20150830T124100Z "
            "(20150830T123600Z + 5 min.)",
        ),
        (403, "RequestTimeTooSkewed", SKEWED),
    ),
    "a past date": (
        header(nothing, at=NOW - timedelta(days=5)),
        (
            403,
            INVALID,
            "Signature expired: 20150825T123600Z is now earlier than 20150830T123100Z (20150830T123600Z - 5 min.)",
        ),
        (403, "RequestTimeTooSkewed", SKEWED),
    ),
    "an unknown key": (
        header(lambda attempt: attempt.replace("AKIDEXAMPLE", "a_rarely_existing_access_key_id")),
        (403, "UnrecognizedClientException", "The security token included in the request is invalid."),
        (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
    ),
    "no date": (
        header(lambda attempt: attempt.with_header("X-Amz-Date", "")),
        (
            403,
            INCOMPLETE,
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. Au…",
        ),
        (403, "AccessDenied", NO_DATE),
    ),
    "a malformed date": (
        header(lambda attempt: attempt.with_header("X-Amz-Date", "03032006")),
        (403, INCOMPLETE, "Date must be in ISO-8601 'basic format'. Got '03032006'. " + ISO),
        (403, "AccessDenied", NO_DATE),
    ),
    "no hash": (
        header(nothing, headers={"X-Amz-Content-SHA256": "invalid_sha256"}),
        (
            403,
            INVALID,
            "The value of 'x-amz-content-sha256' must be the SHA-256 of the request's body, in lower-case "
            "hexadecimal, not 'invalid_sha256'.",
        ),
        (
            400,
            "InvalidArgument",
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a STREAMING- value, or a valid sha256 value.",
        ),
    ),
    "another hash": (
        header(nothing, headers={"X-Amz-Content-SHA256": "0" * 64}),
        (
            403,
            INVALID,
            "The value of 'x-amz-content-sha256' does not match the SHA-256 of the request's body: it should have…",
        ),
        (
            400,
            "XAmzContentSHA256Mismatch",
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        ),
    ),
    "the host is not signed": (
        header(lambda attempt: attempt.replace("SignedHeaders=host;", "SignedHeaders=")),
        (403, INVALID, "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."),
        (403, "AccessDenied", NOT_SIGNED),
    ),
    "a token that is not signed": (
        header(lambda attempt: attempt.with_header("X-Amz-Security-Token", "t")),
        (403, INVALID, "'X-Amz-Security-Token' must be a 'SignedHeader' in the AWS Authorization."),
        (403, "AccessDenied", NOT_SIGNED),
    ),
    "a token with a permanent key": (
        header(nothing, headers={"X-Amz-Security-Token": "t"}),
        (403, "UnrecognizedClientException", "The security token included in the request is invalid."),
        (400, "InvalidToken", "The provided token is malformed or otherwise invalid."),
    ),
    "another secret": (
        header(nothing, secret=KEY.secret_access_key + "a"),
        (
            403,
            INVALID,
            NO_MATCH + "Check your AWS Secret Access Key and signing method. Consult the service…",
        ),
        (403, "SignatureDoesNotMatch", NO_MATCH + "Check your key and signing method."),
    ),
    "both forms": (
        query(authorization("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/1/us-east-1/SERVICE/aws4_request")),
        (
            403,
            INVALID,
            "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.",
        ),
        (
            400,
            "InvalidArgument",
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Sig…",
        ),
    ),
}


def must_include(name: str) -> Answer:
    text = f"AWS query-string parameters must include '{name}'. Re-examine the query-string parameters."
    return 403, INCOMPLETE, text


def query_error(message: str) -> Answer:
    return 400, QUERY_ERROR, message


def expires(value: str) -> Spoil:
    return query(lambda attempt: attempt.replace("X-Amz-Expires=3600", f"X-Amz-Expires={value}"))


TOO_LARGE = (
    "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than "
    "604800 seconds"
)
PRESIGNED: dict[str, tuple[Spoil, Answer, Answer]] = {
    "unsupported algorithm": (
        query(lambda attempt: attempt.replace("AWS4-HMAC-SHA256", "invalid_algo")),
        (403, INCOMPLETE, "Unsupported AWS 'algorithm': 'invalid_algo' (only AWS4-HMAC-SHA256 for now). "),
        query_error('X-Amz-Algorithm only supports "AWS4-HMAC-SHA256"'),
    ),
    "ECDSA": (
        query(lambda attempt: attempt.replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256")),
        (
            403,
            INCOMPLETE,
            "Unsupported AWS 'algorithm': 'AWS4-ECDSA-P256-SHA256' (only AWS4-HMAC-SHA256 for now). ",
        ),
        query_error('X-Amz-Algorithm only supports "AWS4-HMAC-SHA256"'),
    ),
    "no algorithm": (
        query(lambda attempt: attempt.without("X-Amz-Algorithm")),
        (403, "MissingAuthenticationTokenException", "Missing Authentication Token"),
        query_error(S3_MISSING),
    ),
    "no signature": (
        query(lambda attempt: attempt.without("X-Amz-Signature")),
        must_include("X-Amz-Signature"),
        query_error(S3_MISSING),
    ),
    "no credential": (
        query(lambda attempt: attempt.without("X-Amz-Credential")),
        must_include("X-Amz-Credential"),
        query_error(S3_MISSING),
    ),
    "no date": (
        query(lambda attempt: attempt.without("X-Amz-Date")),
        must_include("X-Amz-Date"),
        query_error(S3_MISSING),
    ),
    "no signed headers": (
        query(lambda attempt: attempt.without("X-Amz-SignedHeaders")),
        must_include("X-Amz-SignedHeaders"),
        query_error(S3_MISSING),
    ),
    "malformed credential": (
        query(credential("access/hello/world/SERVICE")),
        (403, INCOMPLETE, PARTS + "'access/hello/world/…"),
        query_error(S3_CREDENTIAL + FORM),
    ),
    "wrong terminator": (
        query(credential("AKIDEXAMPLE/20150830/us-east-1/SERVICE/aws5_request")),
        (
            403,
            INVALID,
            "Credential should be scoped with a valid terminator: 'aws4_request', not 'aws5_request'. ",
        ),
        query_error(S3_CREDENTIAL + 'incorrect terminal "aws5_request". This endpoint uses "aws4_request".'),
    ),
    "wrong region": (
        query(nothing, region="us-west-1"),
        (403, INVALID, "Credential should be scoped to a valid region, not 'us-west-1'. "),
        query_error(S3_CREDENTIAL + "the region 'us-west-1' is wrong; expecting 'us-east-1'"),
    ),
    "no date in the credential": (
        query(credential("AKIDEXAMPLE/3223423234/us-east-1/SERVICE/aws4_request")),
        (
            403,
            INVALID,
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: …",
        ),
        query_error(
            S3_CREDENTIAL + 'incorrect date format "3223423234". '
            'This date in the credential must be in the format "yyyyMMdd".'
        ),
    ),
    "dates that differ": (
        query(credential("AKIDEXAMPLE/20150829/us-east-1/SERVICE/aws4_request")),
        (
            403,
            INVALID,
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: …",
        ),
        query_error(
            S3_CREDENTIAL
            + 'Invalid credential date "20150829". This date is not the same as X-Amz-Date: "20150830".'
        ),
    ),
    "an unknown key": (
        query(lambda attempt: attempt.replace("AKIDEXAMPLE/", "a_rarely_existing_access_key_id/")),
        (403, "UnrecognizedClientException", "The security token included in the request is invalid."),
        (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
    ),
    "a malformed date": (
        query(lambda attempt: attempt.replace("X-Amz-Date=20150830T123600Z", "X-Amz-Date=03032006")),
        (403, INCOMPLETE, "Date must be in ISO-8601 'basic format'. Got '03032006'. " + ISO),
        query_error("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\""),
    ),
    "a header that is not signed": (
        query(lambda attempt: attempt.with_header("X-Amz-Security-Token", "t")),
        (403, INVALID, "'X-Amz-Security-Token' must be a 'SignedHeader' in the AWS Authorization."),
        (403, "AccessDenied", NOT_SIGNED),
    ),
    "a token with a permanent key": (
        query(lambda attempt: setattr(attempt, "target", attempt.target + "&X-Amz-Security-Token=t")),
        (403, "UnrecognizedClientException", "The security token included in the request is invalid."),
        (400, "InvalidToken", "The provided token is malformed or otherwise invalid."),
    ),
    "an expiry that is no number": (
        expires("invalid_value"),
        (403, INCOMPLETE, "X-Amz-Expires should be a number"),
        query_error("X-Amz-Expires should be a number"),
    ),
    "a negative expiry": (
        expires("-3"),
        (403, INCOMPLETE, "X-Amz-Expires must be non-negative"),
        query_error("X-Amz-Expires must be non-negative"),
    ),
    "an expiry of more than a week": (
        expires("604801"),
        (403, INCOMPLETE, TOO_LARGE),
        query_error(TOO_LARGE),
    ),
    "expired": (
        query(nothing, at=NOW - timedelta(seconds=61), expires=60),
        (
            403,
            INVALID,
            "Signature expired: 20150830T123459Z is now earlier than 20150830T123500Z (20150830T123600Z - 1 min.)",
        ),
        (403, "AccessDenied", "Request has expired"),
    ),
    "not valid yet": (
        query(nothing, at=NOW + timedelta(minutes=16)),
        (
            403,
            INVALID,
            "Signature not yet current: 20150830T125200Z is still later than 20150830T124100Z (20150…",
        ),
        (403, "AccessDenied", "Request is not valid yet."),
    ),
    "another secret": (
        query(nothing, secret=KEY.secret_access_key + "x"),
        (
            403,
            INVALID,
            NO_MATCH + "Check your AWS Secret Access Key and signing method. Consult the service…",
        ),
        (403, "SignatureDoesNotMatch", NO_MATCH + "Check your key and signing method."),
    ),
}


@pytest.mark.parametrize("service", ["sagemaker", "s3"])
@pytest.mark.parametrize("name", IN_HEADER)
async def test_a_request_is_refused_as_by_aws(name: str, service: str) -> None:
    spoil, by_sagemaker, by_s3 = IN_HEADER[name]
    answer, _ = await spoil(service).answer()
    assert matches(answer, by_s3 if service == "s3" else by_sagemaker), answer


@pytest.mark.parametrize("service", ["sagemaker", "s3"])
@pytest.mark.parametrize("name", PRESIGNED)
async def test_a_presigned_request_is_refused_as_by_aws(name: str, service: str) -> None:
    spoil, by_sagemaker, by_s3 = PRESIGNED[name]
    answer, _ = await spoil(service).answer()
    assert matches(answer, by_s3 if service == "s3" else by_sagemaker), answer


async def test_an_expiry_is_required_by_s3_only() -> None:
    """Without it a presigned request is good for as long as another."""
    answer, _ = await query(lambda attempt: attempt.without("X-Amz-Expires"))("s3").answer()
    assert answer == query_error(S3_MISSING)
    answer, _ = await query(lambda attempt: attempt.without("X-Amz-Expires"))("sagemaker").answer()
    assert answer[2].startswith(NO_MATCH)
    old = query(lambda attempt: attempt.without("X-Amz-Expires"), at=NOW - timedelta(seconds=301))
    answer, _ = await old("sagemaker").answer()
    assert answer[2].startswith("Signature expired")


@pytest.mark.parametrize("presigned", [False, True], ids=["header", "presigned"])
async def test_another_service_never_reaches_this_one(*, presigned: bool) -> None:
    attempt = Attempt("ec2", presigned=presigned)
    attempt.target = attempt.target.replace(PATHS["ec2"], PATHS["sagemaker"])
    answer, _ = await attempt.answer()
    assert answer == (403, INVALID, "Credential should be scoped to correct service: 'sagemaker'. ")


@pytest.mark.parametrize("presigned", [False, True], ids=["header", "presigned"])
@pytest.mark.parametrize("service", ["sagemaker", "s3"])
async def test_what_is_right_is_accepted(service: str, *, presigned: bool) -> None:
    plain = {"Content-Type": "text/plain", "X-Custom-Header": "v", "Accept": "*/*"}
    attempt = Attempt(service, presigned=presigned, method="POST" if service == "sagemaker" else "PUT")
    attempt.headers |= plain  # not signed, and need not be
    assert await attempt.answer() == ((200, "", ""), {})


@pytest.mark.parametrize("presigned", [False, True], ids=["header", "presigned"])
async def test_s3_takes_no_header_of_its_own_that_is_not_signed(*, presigned: bool) -> None:
    attempt = Attempt("s3", presigned=presigned, method="PUT")
    attempt.headers |= {"X-Amz-Copy-Source": "bucket/other", "X-Amz-Tagging": "a=b"}
    answer, more = await attempt.answer()
    assert answer == (403, "AccessDenied", NOT_SIGNED)
    assert more == {"HeadersNotSigned": "x-amz-copy-source, x-amz-tagging"}


async def test_s3_says_more_in_elements_of_their_own() -> None:
    _, more = await Attempt("s3", presigned=True, at=NOW - timedelta(minutes=2), expires=60).answer()
    assert more == {
        "X-Amz-Expires": "60",
        "Expires": "2015-08-30T12:35:00Z",
        "ServerTime": "2015-08-30T12:36:00Z",
    }
    _, more = await Attempt("s3", at=NOW - timedelta(minutes=16)).answer()
    assert more == {
        "RequestTime": "20150830T122000Z",
        "ServerTime": "2015-08-30T12:36:00Z",
        "MaxAllowedSkewMilliseconds": "900000",
    }
    _, more = await Attempt("s3", secret="wrong").answer()
    assert more["CanonicalRequest"].startswith("PUT\n/bucket/key\n")
    assert bytes.fromhex(more["CanonicalRequestBytes"]).decode() == more["CanonicalRequest"]
    assert bytes.fromhex(more["StringToSignBytes"]).decode() == more["StringToSign"]
    assert more["AWSAccessKeyId"] == KEY.access_key_id


async def test_a_body_is_expected_after_100_continue() -> None:
    """A stranger gets the refusal instead."""
    async with start_gateway() as gateway:
        gateway.front.verifier = verifier()
        attempt = Attempt("s3", method="PUT", body=b"dummy data", secret="wrong")
        attempt.headers["Expect"] = "100-continue"
        reply = await gateway.call(head(attempt.target, attempt.headers, method="PUT"))
        assert reply.status == 403
