"""Signature Version 4 against AWS's public suite, the vector of this service, and botocore."""

import hashlib
import hmac
from pathlib import Path
from urllib.parse import quote

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import example, given
from hypothesis import strategies as st

from moorage.auth import sigv4
from moorage.errors import IncompleteSignatureException

SUITE = Path(__file__).parent.parent / "vectors" / "aws4_testsuite"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SCOPE = sigv4.CredentialScope("AKIDEXAMPLE", "20150830", "us-east-1", "service", "aws4_request")

NOT_RUN = {
    "get-header-value-multiline": "a folded header, which HTTP no longer has and the gateway refuses",
    "get-vanilla-utf8-query": "raw UTF-8 in the query: no request target may hold it, the gateway refuses it",
    "normalize-path/get-space": "a raw space in the target, which is no valid request line",
}
CASES = sorted(
    str(path.parent.relative_to(SUITE)) for path in SUITE.rglob("*.req") if not path.name.startswith(".")
)


class Case:
    """The signed request as it is sent, and what it was signed from."""

    def __init__(self, name: str) -> None:
        folder = SUITE / name
        self._folder, self._name = folder, folder.name
        start, _, rest = self.read("sreq").partition(b"\n")
        fields, _, self.body = rest.partition(b"\n\n")
        self.method, self.target, _ = start.split(b" ")
        self.headers: dict[bytes, bytes] = {}
        for line in fields.split(b"\n"):
            name_, _, value = line.partition(b":")
            key = name_.lower()
            self.headers[key] = self.headers[key] + b"," + value if key in self.headers else value

    def read(self, kind: str) -> bytes:
        return (self._folder / f"{self._name}.{kind}").read_bytes().replace(b"\r\n", b"\n")

    def canonical(self, signed_headers: tuple[bytes, ...]) -> bytes:
        path, _, query = self.target.partition(b"?")
        return sigv4.CanonicalForm(signed_headers).fill(
            method=self.method,
            path=sigv4.canonical_path(path),
            query=sigv4.canonical_query(query),
            headers=self.headers,
            payload_hash=hashlib.sha256(self.body).hexdigest().encode(),
        )


def test_the_suite_is_all_there() -> None:
    assert len(CASES) == 34
    assert set(NOT_RUN) <= set(CASES)


@pytest.mark.parametrize("name", [name for name in CASES if name not in NOT_RUN])
def test_a_case_of_the_suite(name: str) -> None:
    case = Case(name)
    # Not from the `.sreq`: that of get-vanilla-with-session-token carries the signature of get-vanilla.
    authorization = sigv4.parse_authorization(case.read("authz").strip(), has_date=True)
    scope = sigv4.parse_credential(authorization.credential)
    assert scope == SCOPE
    canonical = case.canonical(authorization.signed_headers)
    assert canonical == case.read("creq")
    to_sign = sigv4.string_to_sign(
        timestamp=b"20150830T123600Z", scope=scope.text.encode(), canonical=canonical
    )
    assert to_sign == case.read("sts")
    assert sigv4.Signer(sigv4.signing_key(SECRET, scope)).sign(to_sign).decode() == authorization.signature


def test_the_vector_of_this_service() -> None:
    """What botocore signs for this service: double encoding of the path, runs of spaces in a header."""
    headers = {
        b"content-type": b"application/json",
        b"host": b"runtime.sagemaker.us-east-1.amazonaws.com",
        b"x-amz-date": b"20150830T123600Z",
        b"x-amzn-sagemaker-custom-attributes": b"a=1,  b=2",
    }
    canonical = sigv4.CanonicalForm(tuple(headers)).fill(
        method=b"POST",
        path=sigv4.canonical_path(b"/endpoints/my%20ep/invocations"),
        query=b"",
        headers=headers,
        payload_hash=b"5041bf1f713df204784353e82f6a4a535931cb64f1f4b4a5aeaffcb720918b22",
    )
    digest = "5273663447779c9573e48a3f2711478e3b0f37db18558af00a2cf7354132b9a0"
    assert hashlib.sha256(canonical).hexdigest() == digest
    scope = sigv4.CredentialScope("AKIDEXAMPLE", "20150830", "us-east-1", "sagemaker", "aws4_request")
    to_sign = sigv4.string_to_sign(
        timestamp=b"20150830T123600Z", scope=scope.text.encode(), canonical=canonical
    )
    signature = "198ac75ac5523df2ed1a51ed71668e30c9957c5131b5918a44c2934536b9e5b8"
    assert sigv4.Signer(sigv4.signing_key(SECRET, scope)).sign(to_sign).decode() == signature


TARGET_TEXT = st.text(st.sampled_from("ab-._~%2F0=&+,;:@$'()*!/"), max_size=30)


def from_botocore(target: str) -> tuple[bytes, bytes]:
    request = AWSRequest("GET", "http://host" + target)
    signer = SigV4Auth(Credentials("a", "b"), "sagemaker", "us-east-1")
    request.headers["Host"] = "host"
    _, path, query, *_ = signer.canonical_request(request).split("\n")
    return path.encode(), query.encode()


@given(TARGET_TEXT, TARGET_TEXT)
@example("a//b/./c/../d/", "b=1&a=2&a=1")
@example("endpoints//invocations", "a&b=&=c&&a1=1&a=2&a-=3")
@example("a/..", "")
@example("..", "")
@example("/", "")
def test_paths_and_queries_are_canonical_as_botocore_has_them(path: str, query: str) -> None:
    path = "/" + path
    if path.startswith("//"):
        return  # botocore takes what follows for a host
    assert (
        sigv4.canonical_path(path.encode()),
        sigv4.canonical_query(query.encode()),
    ) == from_botocore(f"{path}?{query}" if query else path)


@given(st.binary(max_size=40))
def test_every_byte_of_a_path_survives_encoding(raw: bytes) -> None:
    path = sigv4.canonical_path(b"/" + quote(raw, safe="").encode())
    assert path.isascii()
    assert path.startswith(b"/")


@given(st.binary(max_size=200))
@example(b"AWS4-HMAC-SHA256 Credential=\xff/\xff/\xff/\xff/\xff, SignedHeaders=\xff, Signature=\xff")
def test_any_header_is_taken_apart_or_refused(header: bytes) -> None:
    try:
        authorization = sigv4.parse_authorization(header, has_date=True)
        sigv4.check_algorithm(authorization)
        sigv4.parse_credential(authorization.credential)
    except IncompleteSignatureException as error:
        assert error.message


@pytest.mark.parametrize("comma", [",", ", ", " ,  "])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_parameters_in_any_order_and_spacing(comma: str, order: tuple[int, ...]) -> None:
    parts = ["Credential=k/20150830/r/s/aws4_request", "SignedHeaders=Host;x-amz-date", "Signature=abc"]
    header = "AWS4-HMAC-SHA256 " + comma.join(parts[index] for index in order)
    authorization = sigv4.parse_authorization(header.encode(), has_date=True)
    assert authorization.signed_headers == (b"host", b"x-amz-date")
    assert (authorization.credential, authorization.signature) == ("k/20150830/r/s/aws4_request", "abc")


@given(st.binary(max_size=64), st.binary(max_size=300))
def test_the_signer_is_hmac_sha256(key: bytes, message: bytes) -> None:
    assert sigv4.Signer(key).sign(message).decode() == hmac.digest(key, message, "sha256").hex()
