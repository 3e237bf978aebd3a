"""Libraries in Python that keep data in S3, each with what its users do in one sequence: every one in a bucket of its
own, with keys that have to be escaped, bodies of several parts, directories, and conditions where it has them."""

import io
import os
import posixpath
import urllib.request
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import awswrangler
import boto3
import obstore
import pandas
import pyarrow
import pyarrow.compute
import pyarrow.csv
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet
import s3fs
import smart_open
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError
from obstore.store import S3Store

from orders import MIB, sha256, unique
from report import check, equal, failure, required, run

KEYS = (
    "plain",
    "with space",
    "plus+plus",
    "100%",
    "percent%20encoded",
    "ümlaut/ß é",
    "d=1/it's (a) key&more",
    "a//b",
)
LARGE = os.urandom(20 * MIB)
PARTS = TransferConfig(multipart_threshold=8 * MIB, multipart_chunksize=8 * MIB)
S3 = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
ENDPOINT = required("AWS_ENDPOINT_URL")
FRAME = pandas.DataFrame({"day": [1, 1, 2], "name": ["a", "ü b", "c+d"], "value": [0.5, 1.5, None]})


def new_bucket() -> str:
    name = f"clients-{unique()}"
    S3.create_bucket(Bucket=name)
    return name


def stored(bucket: str, prefix: str = "") -> list[str]:
    """The keys that boto3 sees there."""
    pages = S3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [each["Key"] for page in pages for each in page.get("Contents", ())]


def same(body: bytes, expected: bytes, what: str) -> None:
    equal(sha256(body), sha256(expected), f"the hash of {what}")


def refused(call: Any, status: int, **members: Any) -> None:
    error = failure(lambda: call(**members), ClientError)
    equal(error.response["ResponseMetadata"]["HTTPStatusCode"], status, f"the status of {error}")


def with_boto3() -> None:
    bucket = new_bucket()
    for key in KEYS:
        metadata = {"Metadata": {"by": "boto3"}, "ContentType": "text/x", "CacheControl": "no-cache"}
        S3.put_object(Bucket=bucket, Key=key, Body=key.encode(), Tagging="a=b", **metadata)
        reply = S3.get_object(Bucket=bucket, Key=key)
        same(reply["Body"].read(), key.encode(), key)
        equal({name: reply[name] for name in metadata}, metadata, f"the metadata of {key}")
        equal(
            S3.get_object_tagging(Bucket=bucket, Key=key)["TagSet"], [{"Key": "a", "Value": "b"}], "the tags"
        )
        S3.copy_object(Bucket=bucket, Key=f"copy/{key}", CopySource={"Bucket": bucket, "Key": key})
        same(
            S3.get_object(Bucket=bucket, Key=f"copy/{key}")["Body"].read(), key.encode(), f"the copy of {key}"
        )
    equal(stored(bucket), sorted([*KEYS, *(f"copy/{key}" for key in KEYS)]), "the keys")
    S3.upload_fileobj(io.BytesIO(LARGE), bucket, "large", Config=PARTS)
    S3.copy({"Bucket": bucket, "Key": "large"}, bucket, "large again", Config=PARTS)
    for key in ("large", "large again"):
        check(S3.head_object(Bucket=bucket, Key=key)["ETag"].endswith('-3"'), f"{key} has three parts")
        whole = io.BytesIO()
        S3.download_fileobj(bucket, key, whole, Config=PARTS)
        same(whole.getvalue(), LARGE, key)
    middle = S3.get_object(Bucket=bucket, Key="large", Range="bytes=1000-1999")
    same(middle["Body"].read(), LARGE[1000:2000], "a range")
    etag = S3.put_object(Bucket=bucket, Key="once", Body=b"1", IfNoneMatch="*")["ETag"]
    refused(S3.put_object, 412, Bucket=bucket, Key="once", Body=b"2", IfNoneMatch="*")
    refused(S3.put_object, 412, Bucket=bucket, Key="once", Body=b"2", IfMatch='"0"')
    S3.put_object(Bucket=bucket, Key="once", Body=b"3", IfMatch=etag)
    refused(S3.get_object, 412, Bucket=bucket, Key="once", IfMatch=etag)
    S3.put_object(Bucket=bucket, Key="d/")
    S3.put_object(Bucket=bucket, Key="d/x", Body=b"x")
    equal(stored(bucket, "d/"), ["d/", "d/x"], "a directory's keys")
    listed = S3.list_objects_v2(Bucket=bucket, Delimiter="/")["CommonPrefixes"]
    equal([each["Prefix"] for each in listed], ["a/", "copy/", "d/", "d=1/", "ümlaut/"], "the prefixes")
    keys = [{"Key": key} for key in stored(bucket)]
    deleted = S3.delete_objects(Bucket=bucket, Delete={"Objects": keys})
    equal(len(deleted["Deleted"]), len(keys), "the number of deleted objects")
    S3.delete_bucket(Bucket=bucket)


def with_s3fs() -> None:
    bucket = new_bucket()
    fs = s3fs.S3FileSystem(endpoint_url=ENDPOINT)
    for key in KEYS[:-1]:  # in s3fs, as in a file system, `a//b` is `a/b`
        fs.pipe(f"{bucket}/{key}", key.encode())
        equal(fs.cat(f"{bucket}/{key}"), key.encode(), key)
    equal(stored(bucket), sorted(KEYS[:-1]), "the keys")
    equal(sorted(fs.find(bucket)), sorted(f"{bucket}/{key}" for key in KEYS[:-1]), "find")
    check(f"{bucket}/ümlaut" in fs.ls(bucket), fs.ls(bucket))
    with fs.open(f"{bucket}/large", "wb", block_size=5 * MIB) as file:
        for begin in range(0, len(LARGE), 3 * MIB):
            file.write(LARGE[begin : begin + 3 * MIB])
    fs.copy(f"{bucket}/large", f"{bucket}/large copy")
    fs.mv(f"{bucket}/large copy", f"{bucket}/moved/large")
    with fs.open(f"{bucket}/moved/large", "rb") as file:
        file.seek(10 * MIB)
        same(file.read(1000), LARGE[10 * MIB :][:1000], "a part of the file")
    same(fs.cat(f"{bucket}/moved/large"), LARGE, "the moved file")
    check(not fs.exists(f"{bucket}/large copy"), "what was moved is gone")
    fs.pipe(f"{bucket}/once", b"1", mode="create")
    failure(lambda: fs.pipe(f"{bucket}/once", b"2", mode="create"), FileExistsError)
    fs.touch(f"{bucket}/d/")
    fs.pipe(f"{bucket}/d/x", b"x")
    equal(stored(bucket, "d/"), ["d/", "d/x"], "a directory's keys")
    fs.setxattr(f"{bucket}/d/x", copy_kwargs={"ContentType": "text/x"}, by="s3fs")
    equal(fs.getxattr(f"{bucket}/d/x", "by"), "s3fs", "the metadata")
    fs.put_tags(f"{bucket}/d/x", {"a": "b"})
    equal(fs.get_tags(f"{bucket}/d/x"), {"a": "b"}, "the tags")
    fs.rm(bucket, recursive=True)
    check(not fs.exists(bucket), "the bucket is gone")


def with_pyarrow() -> None:
    bucket = new_bucket()
    scheme, _, address = ENDPOINT.partition("://")
    fs = pyarrow.fs.S3FileSystem(endpoint_override=address, scheme=scheme, allow_bucket_deletion=True)
    fs.create_dir(f"{bucket}/made/in/turn")
    equal(stored(bucket), ["made/", "made/in/", "made/in/turn/"], "the keys of directories")
    equal(fs.get_file_info(f"{bucket}/made/in").type, pyarrow.fs.FileType.Directory, "its type")
    table = pyarrow.Table.from_pandas(FRAME)
    where = f"{bucket}/made/in/turn/set ü"
    pyarrow.dataset.write_dataset(
        table,
        where,
        filesystem=fs,
        format="parquet",
        partitioning=["day", "name"],
        partitioning_flavor="hive",
    )
    names = [
        posixpath.dirname(key).rpartition("day=")[2] for key in stored(bucket) if key.endswith(".parquet")
    ]
    equal(names, ["1/name=%C3%BC%20b", "1/name=a", "2/name=c%2Bd"], "the partitions")
    found = pyarrow.dataset.dataset(where, filesystem=fs, format="parquet", partitioning="hive")
    equal(found.count_rows(), 3, "the rows")
    some = found.to_table(filter=pyarrow.compute.field("day") == 1)
    equal(sorted(some["name"].to_pylist()), ["a", "ü b"], "the rows of a partition")
    with fs.open_output_stream(
        f"{bucket}/large", metadata={"Content-Type": "text/x", "by": "pyarrow"}
    ) as stream:
        for begin in range(0, len(LARGE), 3 * MIB):
            stream.write(LARGE[begin : begin + 3 * MIB])
    fs.copy_file(f"{bucket}/large", f"{bucket}/with space+100%")
    fs.move(f"{bucket}/with space+100%", f"{bucket}/ümlaut")
    with fs.open_input_file(f"{bucket}/ümlaut") as file:
        same(file.read_at(1000, 5 * MIB), LARGE[5 * MIB :][:1000], "a part of the file")
        same(file.readall(), LARGE, "the moved file")
    with fs.open_input_stream(f"{bucket}/large") as stream:
        equal(stream.metadata()["Content-Type"], b"text/x", "the type")
    infos = fs.get_file_info(pyarrow.fs.FileSelector(bucket, recursive=False))
    equal(sorted(each.base_name for each in infos), ["large", "made", "ümlaut"], "the list")
    fs.delete_dir(f"{bucket}/made/in")
    equal(fs.get_file_info(f"{bucket}/made").type, pyarrow.fs.FileType.Directory, "the parent's type")
    fs.delete_dir_contents(bucket)
    fs.delete_dir(bucket)
    failure(lambda: S3.head_bucket(Bucket=bucket), ClientError)


def with_pandas() -> None:
    bucket = new_bucket()
    url = f"s3://{bucket}/with space/ü+100%"
    FRAME.to_parquet(f"{url}.parquet")
    pandas.testing.assert_frame_equal(pandas.read_parquet(f"{url}.parquet"), FRAME)
    FRAME.to_csv(f"{url}.csv", index=False)
    pandas.testing.assert_frame_equal(pandas.read_csv(f"{url}.csv"), FRAME)
    FRAME.to_json(f"{url}.jsonl.gz", orient="records", lines=True)
    pandas.testing.assert_frame_equal(pandas.read_json(f"{url}.jsonl.gz", lines=True), FRAME)
    FRAME.to_parquet(f"s3://{bucket}/parts", partition_cols=["day"])
    read = pandas.read_parquet(f"s3://{bucket}/parts", filters=[("day", "==", 1)])
    equal(sorted(read["name"]), ["a", "ü b"], "the rows of a partition")
    FRAME.to_pickle(f"{url}.pkl")
    pandas.testing.assert_frame_equal(pandas.read_pickle(f"{url}.pkl"), FRAME)
    failure(lambda: pandas.read_csv(f"s3://{bucket}/missing.csv"), FileNotFoundError)


def with_awswrangler() -> None:
    bucket = new_bucket()
    root = f"s3://{bucket}/with space/ü+100%/"
    written = awswrangler.s3.to_parquet(FRAME, f"{root}set/", dataset=True, partition_cols=["day"])
    equal(len(written["paths"]), 2, "the number of files")
    equal(sorted(awswrangler.s3.list_objects(f"{root}set/")), sorted(written["paths"]), "list_objects")
    read = awswrangler.s3.read_parquet(f"{root}set/", dataset=True)
    equal(sorted(read["name"]), ["a", "c+d", "ü b"], "the rows")
    awswrangler.s3.to_parquet(FRAME[:1], f"{root}set/", dataset=True, mode="overwrite")
    equal(len(awswrangler.s3.read_parquet(f"{root}set/", dataset=True)), 1, "the rows after overwriting")
    awswrangler.s3.to_csv(FRAME, f"{root}a.csv", index=False)
    pandas.testing.assert_frame_equal(
        awswrangler.s3.read_csv(f"{root}a.csv", dtype_backend="numpy_nullable"), FRAME, check_dtype=False
    )
    awswrangler.s3.upload(io.BytesIO(LARGE), f"{root}large")
    awswrangler.s3.copy_objects([f"{root}large"], source_path=root, target_path=f"s3://{bucket}/copy/")
    whole = io.BytesIO()
    awswrangler.s3.download(f"s3://{bucket}/copy/large", whole)
    same(whole.getvalue(), LARGE, "the copy")
    equal(awswrangler.s3.size_objects(f"{root}large")[f"{root}large"], len(LARGE), "the size")
    check(awswrangler.s3.does_object_exist(f"{root}a.csv"), "it exists")
    equal(awswrangler.s3.list_directories(f"{root}"), [f"{root}set/"], "list_directories")
    awswrangler.s3.delete_objects(f"s3://{bucket}/")
    equal(stored(bucket), [], "what is left")


def with_smart_open() -> None:
    bucket = new_bucket()
    parameters = {"client": S3}
    for key in KEYS[:-1]:
        with smart_open.open(f"s3://{bucket}/{key}", "w", transport_params=parameters) as file:
            file.write(key)
        with smart_open.open(f"s3://{bucket}/{key}", transport_params=parameters) as file:
            equal(file.read(), key, key)
    parts = {**parameters, "min_part_size": 5 * MIB}
    with smart_open.open(f"s3://{bucket}/large", "wb", transport_params=parts) as file:
        file.write(LARGE)
    with smart_open.open(f"s3://{bucket}/large", "rb", transport_params=parameters) as file:
        file.seek(7 * MIB)
        same(file.read(1000), LARGE[7 * MIB :][:1000], "a part of the file")
        file.seek(0)
        same(file.read(), LARGE, "the file")
    whole = {**parameters, "multipart_upload": False}
    with smart_open.open(f"s3://{bucket}/lines.txt.gz", "w", transport_params=whole) as file:
        file.write("one\ntwo\n")
    with smart_open.open(f"s3://{bucket}/lines.txt.gz", transport_params=parameters) as file:
        equal(file.readlines(), ["one\n", "two\n"], "the lines")
    failure(lambda: smart_open.open(f"s3://{bucket}/missing", transport_params=parameters), OSError)


def with_obstore() -> None:
    bucket = new_bucket()
    store = S3Store(
        bucket, endpoint=ENDPOINT, virtual_hosted_style_request=False, client_options={"allow_http": True}
    )
    keys = [key for key in KEYS if "//" not in key]  # object_store takes no empty part
    for key in keys:
        obstore.put(store, key, key.encode(), attributes={"Content-Type": "text/x", "by": "obstore"})
        reply = obstore.get(store, key)
        equal(bytes(reply.bytes()), key.encode(), key)
        equal(reply.attributes, {"Content-Type": "text/x", "by": "obstore"}, f"the attributes of {key}")
    equal(_paths(obstore.list(store).collect()), sorted(keys), "the list")
    listed = obstore.list_with_delimiter(store)
    equal(sorted(listed["common_prefixes"]), ["d=1", "ümlaut"], "the prefixes")
    obstore.put(store, "once", b"1", mode="create")
    failure(lambda: obstore.put(store, "once", b"2", mode="create"), obstore.exceptions.AlreadyExistsError)
    version = obstore.head(store, "once")["e_tag"]
    obstore.put(store, "once", b"3", mode={"e_tag": version})
    stale = obstore.exceptions.PreconditionError
    failure(lambda: obstore.put(store, "once", b"4", mode={"e_tag": version}), stale)
    obstore.put(store, "once", b"5", mode="overwrite")
    obstore.put(store, "large", LARGE, chunk_size=5 * MIB, max_concurrency=3)
    same(bytes(obstore.get_range(store, "large", start=1000, end=2000)), LARGE[1000:2000], "a range")
    pieces = obstore.get_ranges(store, "large", starts=[0, 15 * MIB], lengths=[10, 10])
    equal([bytes(piece) for piece in pieces], [LARGE[:10], LARGE[15 * MIB :][:10]], "ranges")
    obstore.copy(store, "large", "copy of/large")
    obstore.rename(store, "copy of/large", "moved/large")
    same(bytes(obstore.get(store, "moved/large").bytes()), LARGE, "the moved object")
    failure(lambda: obstore.get(store, "copy of/large"), FileNotFoundError)
    with obstore.open_writer(store, "written", buffer_size=5 * MIB) as writer:
        writer.write(LARGE[: 8 * MIB])
    same(obstore.open_reader(store, "written").read().to_bytes(), LARGE[: 8 * MIB], "what was written")
    signed = obstore.sign(store, "GET", "with space", timedelta(minutes=1))
    with urllib.request.urlopen(signed) as reply:
        equal(reply.read(), b"with space", "what the presigned URL gives")
    obstore.delete(store, _paths(obstore.list(store).collect()))
    equal(stored(bucket), [], "what is left")


def _paths(objects: Iterable[Any]) -> list[str]:
    return sorted(each["path"] for each in objects)


if __name__ == "__main__":
    run(
        {
            "storage.boto3": with_boto3,
            "storage.s3fs": with_s3fs,
            "storage.pyarrow": with_pyarrow,
            "storage.pandas": with_pandas,
            "storage.awswrangler": with_awswrangler,
            "storage.smart-open": with_smart_open,
            "storage.obstore": with_obstore,
        }
    )
