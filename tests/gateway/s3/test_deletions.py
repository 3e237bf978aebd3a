"""The XML of DeleteObjects and of other bodies that decide something: read strictly, rendered anew."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.errors import S3Error
from moorage.gateway.s3.collected import check_digests
from moorage.gateway.s3.deletions import Deletion, Refused, read, render, render_result
from moorage.gateway.s3.documents import read_bucket_configuration, read_tagging, render_tagging

NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"]) | st.sampled_from("\t\n\r")
)


def test_objects_are_read() -> None:
    body = (
        f"<Delete {NAMESPACE}><Object><Key>a&amp;b</Key></Object><Quiet>true</Quiet>"
        "<Object><Key>c</Key><VersionId>1</VersionId><ETag>x</ETag></Object></Delete>"
    )
    assert read(body.encode()) == ([Deletion("a&b", None, {}), Deletion("c", "1", {"ETag": "x"})], True)
    assert read(b"<Delete><Object><Key> a </Key></Object></Delete>") == ([Deletion(" a ", None, {})], False)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not XML",
        b"<Delete/>",
        b"<Other><Object><Key>a</Key></Object></Other>",
        b"<Delete><Object/></Delete>",
        b"<Delete><Object><Key></Key></Object></Delete>",
        b"<Delete><Object><Key>a</Key><Key>b</Key></Object></Delete>",
        b"<Delete><Object><Key>a<b/></Key></Object></Delete>",
        b"<Delete><Object><Key>a</Key><Other>b</Other></Object></Delete>",
        b"<Delete><Other/></Delete>",
        b'<!DOCTYPE d [<!ENTITY e "x">]><Delete><Object><Key>&e;</Key></Object></Delete>',
        '<!DOCTYPE d [<!ENTITY e "x">]><Delete><Object><Key>&e;</Key></Object></Delete>'.encode("utf-16"),
        b"<Delete>" + b"<Object><Key>a</Key></Object>" * 1001 + b"</Delete>",
        b"<Delete>" + b"<a>" * 9000 + b"</a>" * 9000 + b"</Delete>",
        b"<Delete " + b" ".join(b'a%d=""' % number for number in range(1000)) + b"/>",
    ],
)
def test_what_is_no_such_document_is_refused(body: bytes) -> None:
    with pytest.raises(S3Error) as refused:
        read(body)
    assert (refused.value.code, refused.value.status) == ("MalformedXML", 400)


@given(
    st.lists(st.builds(Deletion, TEXTS.filter(bool), st.none() | TEXTS.filter(bool), st.just({})), min_size=1)
)
def test_what_is_rendered_reads_as_the_same(deletions: list[Deletion]) -> None:
    assert read(render(deletions)) == (deletions, False)


@given(st.lists(st.tuples(TEXTS, TEXTS)))
def test_tags_are_rendered_as_they_were_read(tags: list[tuple[str, str]]) -> None:
    assert read_tagging(render_tagging(tags)) == tags


def test_refusals_are_told_beside_results() -> None:
    body = render_result([Refused(Deletion("a<b", "1", {}), "AccessDenied", "no & no")]).decode()
    assert "<Error><Key>a&lt;b</Key><VersionId>1</VersionId><Code>AccessDenied</Code>" in body
    assert "<Message>no &amp; no</Message></Error>" in body


def test_the_place_of_a_bucket() -> None:
    place = f"<CreateBucketConfiguration {NAMESPACE}><LocationConstraint>eu-west-1</LocationConstraint>"
    assert read_bucket_configuration(f"{place}</CreateBucketConfiguration>".encode()) == {
        "LocationConstraint": "eu-west-1"
    }
    assert read_bucket_configuration(b"") == {}
    with pytest.raises(S3Error) as refused:
        read_bucket_configuration(
            f"{place}<Bucket><Type>Directory</Type></Bucket></CreateBucketConfiguration>".encode()
        )
    assert refused.value.code == "NotImplemented"


@pytest.mark.parametrize(
    ("name", "value"),
    [  # of b"123456789", as the catalogue of CRCs has them
        ("content-md5", "JfnnlDI7RTiF9RgfG2JNCw=="),
        ("x-amz-checksum-crc32", "y/Q5Jg=="),
        ("x-amz-checksum-crc32c", "4waSgw=="),
        ("x-amz-checksum-crc64nvme", "rosUhgp5mIg="),
        ("x-amz-checksum-sha1", "98O8HYCOBHMq32eZZczDTKeuNEE="),
        ("x-amz-checksum-sha256", "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU="),
    ],
)
def test_digests_of_bodies_that_the_s3_never_sees(name: str, value: str) -> None:
    check_digests(b"123456789", {name.encode(): value.encode()})
    for headers in ({name.encode(): b"AAAA"}, {name.encode(): b"?"}):
        with pytest.raises(S3Error) as refused:
            check_digests(b"123456789", headers)
        assert refused.value.code == "BadDigest"


def test_as_many_objects_as_one_call_may_name_are_read() -> None:
    conditions = {"ETag": "x", "LastModifiedTime": "y", "Size": "1"}
    deletions = [Deletion("k" * 1024, "v" * 26, conditions)] * 1000
    assert read(render(deletions)) == (deletions, False)
    assert len(render(deletions)) < 2 * 1024 * 1024


def test_one_checksum_is_declared_at_most() -> None:
    with pytest.raises(S3Error) as refused:
        check_digests(b"", {b"x-amz-checksum-crc32": b"AAAAAA==", b"x-amz-checksum-sha1": b"x"})
    assert refused.value.code == "InvalidRequest"
