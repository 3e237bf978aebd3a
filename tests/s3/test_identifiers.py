"""Identifiers of uploads become part of paths: no other text is taken for one."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.s3.program import B, S3Program

WHERE = {"Bucket": "own", "Key": "k"}
TRIES: dict[str, Callable[[Any, str], object]] = {
    "list parts": lambda s3, upload: s3.list_parts(**WHERE, UploadId=upload),
    "upload a part": lambda s3, upload: s3.upload_part(
        **WHERE, UploadId=upload, PartNumber=1, Body=b"planted"
    ),
    "copy a part": lambda s3, upload: s3.upload_part_copy(
        **WHERE, UploadId=upload, PartNumber=1, CopySource="own/source"
    ),
    "complete": lambda s3, upload: s3.complete_multipart_upload(
        **WHERE, UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": "x"}]}
    ),
    "abort": lambda s3, upload: s3.abort_multipart_upload(**WHERE, UploadId=upload),
}


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Program]:
    program = S3Program(tmp_path_factory.mktemp("identifiers") / "data").start()
    program.client().create_bucket(Bucket="others")
    program.client().put_object(Bucket="others", Key="secret", Body=b"another account's")
    own = program.client(B)
    own.create_bucket(Bucket="own")
    own.put_object(Bucket="own", Key="source", Body=b"x")
    own.create_multipart_upload(**WHERE)  # makes the directory that such paths begin in
    yield program
    program.ensure_stopped()


@pytest.mark.parametrize("attempt", TRIES)
@pytest.mark.parametrize("upload", ["../../../../others", "../../../../../s3-versions", ".", "../x"])
def test_no_path_is_taken_for_an_upload(s3: S3Program, attempt: str, upload: str) -> None:
    with pytest.raises(ClientError) as refused:
        TRIES[attempt](s3.client(B), upload)
    assert refused.value.response["Error"]["Code"] == "NoSuchUpload"
    listed = s3.client().list_objects_v2(Bucket="others")["Contents"]
    assert [each["Key"] for each in listed] == ["secret"]
