"""Keys that end: sessions and their tokens, revocation, what may be remembered; and presigned requests in time."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest
from botocore.auth import S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from moorage.auth.credentials import AccessKey
from moorage.auth.verifier import Verifier
from moorage.errors import ExpiredTokenException, ServiceError, UnrecognizedClientException
from tests.auth.test_verifier import BODY, KEY, NOW, Clock, Sent

TOKEN = "FwoGZXIvYXdzEJr/+=="
SESSION = AccessKey(
    access_key_id="ASIAEXAMPLE",
    secret_access_key="session secret",
    account_id="123456789012",
    principal_arn="arn:aws:sts::123456789012:assumed-role/reader/me",
    user_id="AROAEXAMPLE:me",
    expires_at=NOW.timestamp() + 60,
)
INVALID_TOKEN = ("UnrecognizedClientException", "The security token included in the request is invalid.")
EXPIRED_TOKEN = ("ExpiredTokenException", "The security token included in the request is expired")


class Sessions:
    """Opens one token, for as long as its session is not revoked."""

    def __init__(self) -> None:
        self.revoked = False
        self.opened = 0

    def __call__(self, token: bytes) -> AccessKey:
        self.opened += 1
        if self.revoked or token not in (TOKEN.encode(), b"old"):
            raise UnrecognizedClientException("no such session")
        if token == b"old":
            raise ExpiredTokenException("over")
        return SESSION


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


@pytest.fixture
def verifier(clock: Clock, sessions: Sessions) -> Verifier:
    return Verifier({KEY.access_key_id: KEY}, open_session=sessions, clock=clock)


class Signed(Sent):
    """Signed with a session's key and token, in the header or in the query."""

    def __init__(
        self,
        *,
        token: str | None = TOKEN,
        key: AccessKey = SESSION,
        presigned: bool = False,
        service: str = "sagemaker",
        at: datetime = NOW,
        expires: int = 60,
        body: bytes = BODY,
    ) -> None:
        request = AWSRequest("POST", "http://host:8080/endpoints/echo/invocations?a=1", data=body)
        credentials = Credentials(key.access_key_id, key.secret_access_key, token)
        signer = SigV4Auth(credentials, service, "us-east-1")
        if presigned:
            request.data = b""
            kind = S3SigV4QueryAuth if service == "s3" else SigV4QueryAuth
            signer = kind(credentials, service, "us-east-1", expires=expires)
        with mock.patch("botocore.auth.get_current_datetime", return_value=at):
            signer.add_auth(request)
        self.method = b"POST"
        self.target = request.url.removeprefix("http://host:8080").encode()
        self.headers = {b"host": b"host:8080"}
        self.headers |= {name.lower().encode(): value.encode() for name, value in request.headers.items()}
        self.body = b"" if presigned else body


FORMS = pytest.mark.parametrize("presigned", [False, True], ids=["header", "presigned"])


@FORMS
def test_a_session_signs_with_its_token(verifier: Verifier, *, presigned: bool) -> None:
    for _ in range(2):  # judged anew, and as seen before
        assert Signed(presigned=presigned).verified_by(verifier) is SESSION


@FORMS
@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ({"token": None}, INVALID_TOKEN),
        ({"token": "other"}, INVALID_TOKEN),
        ({"token": "old"}, EXPIRED_TOKEN),
        ({"key": KEY}, INVALID_TOKEN),
        ({"key": replace(KEY, access_key_id="ASIAOTHER")}, INVALID_TOKEN),
    ],
    ids=["no token", "unknown token", "old token", "permanent key with a token", "token of another key"],
)
def test_a_key_without_its_own_token_is_refused(
    verifier: Verifier, options: dict[str, object], refusal: tuple[str, str], *, presigned: bool
) -> None:
    for seen in (False, True):
        if seen:
            Signed().verified_by(verifier)
            Sent().verified_by(verifier)
        assert Signed(presigned=presigned, **options).refused_by(verifier) == refusal  # type: ignore[arg-type]


@FORMS
def test_no_session_is_known_where_none_are_issued(clock: Clock, *, presigned: bool) -> None:
    verifier = Verifier({KEY.access_key_id: KEY}, clock=clock)
    assert Signed(presigned=presigned).refused_by(verifier) == INVALID_TOKEN


def test_a_session_seen_before_must_send_its_token_again(verifier: Verifier) -> None:
    assert Signed().verified_by(verifier) is SESSION
    for token in (None, b"", b"other", TOKEN.encode() + b" "):
        sent = Signed()
        if token is None:
            del sent.headers[b"x-amz-security-token"]
        else:
            sent.headers[b"x-amz-security-token"] = token
        assert sent.refused_by(verifier) == INVALID_TOKEN


def test_the_token_must_be_signed(verifier: Verifier) -> None:
    sent = Signed(token=None)
    sent.headers[b"x-amz-security-token"] = TOKEN.encode()
    assert sent.refused_by(verifier) == (
        "InvalidSignatureException",
        "'X-Amz-Security-Token' must be a 'SignedHeader' in the AWS Authorization.",
    )


@FORMS
@pytest.mark.parametrize("seen", [False, True], ids=["new", "seen before"])
def test_a_session_ends_to_the_second(
    verifier: Verifier, clock: Clock, *, presigned: bool, seen: bool
) -> None:
    if seen:
        Signed(presigned=presigned).verified_by(verifier)
    clock.now = NOW.timestamp() + 59.999
    assert Signed(presigned=presigned).verified_by(verifier) is SESSION
    clock.now = NOW.timestamp() + 60
    assert Signed(presigned=presigned).refused_by(verifier) == EXPIRED_TOKEN


# --- revocation ---------------------------------------------------------------------------------------------------


def test_a_revoked_session_is_not_remembered(verifier: Verifier, sessions: Sessions) -> None:
    for _ in range(3):
        Signed().verified_by(verifier)
    assert sessions.opened == 1
    sessions.revoked = True
    verifier.forget()
    assert Signed().refused_by(verifier) == INVALID_TOKEN


def test_a_replaced_key_is_not_remembered(verifier: Verifier) -> None:
    other = replace(KEY, access_key_id="AKIDOTHER", secret_access_key="other")
    rotated = replace(KEY, secret_access_key="rotated")
    assert Sent().verified_by(verifier) is KEY
    verifier.replace({other.access_key_id: other})
    assert Sent().refused_by(verifier) == INVALID_TOKEN
    assert Sent(key=other).verified_by(verifier) is other
    verifier.replace({KEY.access_key_id: rotated})
    assert Sent().refused_by(verifier)[0] == "InvalidSignatureException"
    assert Sent(key=rotated).verified_by(verifier) is rotated
    assert Sent(key=other).refused_by(verifier) == INVALID_TOKEN


@pytest.mark.parametrize("seen", [False, True], ids=["new", "seen before"])
@pytest.mark.parametrize("make", [Sent, Signed], ids=["permanent", "session"])
def test_a_key_revoked_while_the_body_arrives_is_refused(
    verifier: Verifier, sessions: Sessions, make: Callable[[], Sent], *, seen: bool
) -> None:
    if seen:
        make().verified_by(verifier)
    sent = make()
    claim = verifier.claim(sent.headers, sent.target)
    kept = verifier.claim(sent.headers, sent.target)
    digest = "5041bf1f713df204784353e82f6a4a535931cb64f1f4b4a5aeaffcb720918b22"
    verifier.forget()
    verifier.verify(kept, sent.method, sent.target, sent.headers, digest)  # it is still there
    sessions.revoked = True
    verifier.replace({})
    with pytest.raises(UnrecognizedClientException):
        verifier.verify(claim, sent.method, sent.target, sent.headers, digest)
    assert "0 signers remembered" in repr(verifier)


def test_nothing_is_remembered_of_strangers(verifier: Verifier) -> None:
    for number in range(10):
        stranger = replace(KEY, access_key_id=f"AKID{number}")
        Sent(key=stranger).refused_by(verifier)
        Signed(token=f"{number}").refused_by(verifier)
        Sent(key=replace(KEY, secret_access_key="guess")).refused_by(verifier)
    assert repr(verifier) == "<Verifier 1 keys, 0 signers remembered>"
    Sent().verified_by(verifier)
    assert repr(verifier) == "<Verifier 1 keys, 1 signers remembered>"


# --- midnight -----------------------------------------------------------------------------------------------------


def test_a_request_of_yesterday_is_good_until_five_past_midnight(verifier: Verifier, clock: Clock) -> None:
    evening = datetime(2015, 8, 30, 23, 59, tzinfo=UTC)
    morning = datetime(2015, 8, 31, 0, 2, tzinfo=UTC)
    clock.now = morning.timestamp()
    for at in (evening, morning, evening, morning):
        assert Sent(at=at).verified_by(verifier) is KEY
        assert Signed(at=at, presigned=True, key=KEY, token=None, expires=180).verified_by(verifier) is KEY
    # Neither day's key is good for the other day's scope.
    for at, other in ((evening, "20150831"), (morning, "20150830")):
        sent = Sent(at=at)
        sent.authorization = sent.authorization.replace(f"/{at:%Y%m%d}/", f"/{other}/")
        assert "Date in Credential scope" in sent.refused_by(verifier)[1]
        sent.headers[b"x-amz-date"] = f"{other}T000100Z".encode()
        assert sent.refused_by(verifier)[0] == "InvalidSignatureException"
    clock.now = datetime(2015, 8, 31, 0, 4, tzinfo=UTC).timestamp()
    assert Sent(at=evening).verified_by(verifier) is KEY
    clock.now += 0.001
    assert "Signature expired" in Sent(at=evening).refused_by(verifier)[1]


# --- presigned requests in time ------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["sagemaker", "s3"])
@pytest.mark.parametrize("lifetime", [1, 60, 3600, 604800])
def test_a_presigned_request_expires_to_the_second(
    verifier: Verifier, clock: Clock, service: str, lifetime: int
) -> None:
    sent = Signed(presigned=True, key=KEY, token=None, service=service, expires=lifetime)
    for age in (0, lifetime - 1, lifetime):
        clock.now = NOW.timestamp() + age
        assert sent.verified_by(verifier) is KEY
    for age in (lifetime + 0.001, lifetime + 1, lifetime + 86400):
        clock.now = NOW.timestamp() + age
        assert "Signature expired" in sent.refused_by(verifier)[1]


@pytest.mark.parametrize(("service", "minutes"), [("sagemaker", 5), ("s3", 15)])
def test_the_clock_that_presigned_may_be_ahead(
    verifier: Verifier, clock: Clock, service: str, minutes: int
) -> None:
    sent = Signed(presigned=True, key=KEY, token=None, service=service)
    clock.now = NOW.timestamp() - minutes * 60
    assert sent.verified_by(verifier) is KEY
    clock.now -= 0.001
    assert "Signature not yet current" in sent.refused_by(verifier)[1]


@pytest.mark.parametrize("lifetime", [0, 604801, -1, 10**30])
def test_a_lifetime_is_a_second_to_a_week(verifier: Verifier, lifetime: int) -> None:
    sent = Signed(presigned=True, key=KEY, token=None, service="s3", expires=lifetime)
    assert sent.refused_by(verifier)[0] in ("IncompleteSignatureException", "InvalidSignatureException")


def test_a_presigned_request_signs_the_body_except_for_s3(verifier: Verifier) -> None:
    sent = Signed(presigned=True, key=KEY, token=None)
    sent.body = b"slipped in"
    assert sent.refused_by(verifier)[0] == "InvalidSignatureException"
    sent = Signed(presigned=True, key=KEY, token=None, service="s3")
    sent.body = b"whatever is uploaded"
    assert sent.verified_by(verifier) is KEY


def test_a_presigned_path_of_s3_is_encoded_once(verifier: Verifier) -> None:
    for service, accepted in (("s3", True), ("sagemaker", False)):
        request = AWSRequest("GET", "http://host:8080/bucket//a%20b/../c")
        signer = S3SigV4QueryAuth(
            Credentials(KEY.access_key_id, KEY.secret_access_key), service, "us-east-1", 60
        )
        with mock.patch("botocore.auth.get_current_datetime", return_value=NOW):
            signer.add_auth(request)
        sent = Signed()
        sent.method, sent.body, sent.headers = b"GET", b"", {b"host": b"host:8080"}
        sent.target = request.url.removeprefix("http://host:8080").encode()
        if accepted:
            assert sent.verified_by(verifier) is KEY
        else:
            with pytest.raises(ServiceError):
                sent.verified_by(verifier)


def test_a_hash_in_the_query_is_one_that_s3_knows(verifier: Verifier) -> None:
    """Some SDKs put x-amz-content-sha256 there."""
    for declared in ("UNSIGNED-PAYLOAD", "0" * 64):
        request = AWSRequest("PUT", f"http://host:8080/b/k?X-Amz-Content-Sha256={declared}")
        signer = S3SigV4QueryAuth(
            Credentials(KEY.access_key_id, KEY.secret_access_key), "s3", "us-east-1", 60
        )
        with (
            mock.patch("botocore.auth.get_current_datetime", return_value=NOW),
            mock.patch.object(signer, "payload", lambda _, declared=declared: declared),
        ):
            signer.add_auth(request)
        target = request.url.removeprefix("http://host:8080").encode()
        claim = verifier.claim({b"host": b"host:8080"}, target)
        assert claim.declares_real_hash is (declared != "UNSIGNED-PAYLOAD")
        assert verifier.verify(claim, b"PUT", target, {b"host": b"host:8080"}, declared) is KEY


def test_several_days_ago_is_several_days_ago(verifier: Verifier, clock: Clock) -> None:
    sent = Signed(
        presigned=True, key=KEY, token=None, service="s3", at=NOW - timedelta(days=6), expires=604800
    )
    assert sent.verified_by(verifier) is KEY
    clock.now += 86401
    assert sent.refused_by(verifier)[0] == "InvalidSignatureException"
