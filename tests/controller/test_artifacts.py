"""Model artifacts: archives of friends and of adversaries, and the names of uncompressed objects."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moorage.controller.artifacts import (
    ArtifactError,
    check_no_clash,
    extraction_failure,
    relative_name,
    unpack,
)

MIB = 1024 * 1024
Entry = tuple[tarfile.TarInfo, bytes]


def file(name: str, content: bytes = b"x", mode: int = 0o644) -> Entry:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    return info, content


def special(name: str, kind: bytes, target: str = "") -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def directory(name: str) -> Entry:
    return special(name, tarfile.DIRTYPE)


def symlink(name: str, target: str) -> Entry:
    return special(name, tarfile.SYMTYPE, target)


def hardlink(name: str, target: str) -> Entry:
    return special(name, tarfile.LNKTYPE, target)


def tar(*entries: Entry, format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def tgz(*entries: Entry) -> bytes:
    return gzip.compress(tar(*entries), 1)


def unpack_bytes(data: bytes, destination: Path, max_bytes: int = MIB, max_files: int = 100) -> None:
    unpack(io.BytesIO(data), destination, max_bytes=max_bytes, max_files=max_files)


def files_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def refuse(data: bytes, place: Path, reason: str, max_bytes: int = MIB, max_files: int = 100) -> None:
    """It is refused for that reason, and nothing is left of it."""
    with pytest.raises(ArtifactError, match=reason):
        unpack_bytes(data, place / "model", max_bytes, max_files)
    assert list(place.iterdir()) == []


# --- archives as they should be ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "compress", [gzip.compress, bytes, lambda d: gzip.compress(d[:700]) + gzip.compress(d[700:])]
)
def test_an_archive_is_unpacked_compressed_or_not(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    data = tar(
        directory("./"),
        file("./model.joblib", b"m" * 3000),
        file("code/inference.py", b"p"),
        directory("e/f"),
    )
    unpack_bytes(compress(data), tmp_path / "model")
    assert files_of(tmp_path / "model") == {"model.joblib": b"m" * 3000, "code/inference.py": b"p"}
    assert (tmp_path / "model/e/f").is_dir()
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_a_path_works_like_a_file_object_and_an_empty_directory_is_filled(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(tgz(file("m")))
    (tmp_path / "model").mkdir()
    unpack(tmp_path / "a.tar.gz", tmp_path / "model", max_bytes=MIB)
    assert files_of(tmp_path / "model") == {"m": b"x"}


def test_a_stream_need_not_be_seekable(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, tgz(file("m", b"piped")))
    os.close(writer)
    with os.fdopen(reader, "rb", buffering=0) as stream:
        unpack(cast(BinaryIO, stream), tmp_path / "model", max_bytes=MIB)
    assert files_of(tmp_path / "model") == {"m": b"piped"}


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_foreign_names_survive(tmp_path: Path, format: int) -> None:
    name = "/".join(["d" * 200, "ü" * 60, "n" * 255])
    unpack_bytes(tar(file(name), format=format), tmp_path / "model")
    assert list(files_of(tmp_path / "model")) == [name]


def test_only_harmless_mode_bits_are_kept(tmp_path: Path) -> None:
    entries = [file("a", mode=0o7777), file("b", mode=0o000), file("c", mode=0o664)]
    unpack_bytes(tar(*entries), tmp_path / "model")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "model").iterdir()}
    assert modes == {"a": 0o755, "b": 0o600, "c": 0o644}
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o755


def test_a_later_entry_replaces_an_earlier_one_and_not_its_hard_links(tmp_path: Path) -> None:
    unpack_bytes(tar(file("a", b"1"), hardlink("b", "a"), file("a", b"2")), tmp_path / "model")
    assert files_of(tmp_path / "model") == {"a": b"2", "b": b"1"}


def test_links_that_stay_inside_are_kept(tmp_path: Path) -> None:
    entries = [
        symlink("snapshots/main/model.bin", "../../blobs/1"),
        symlink("latest", "snapshots/main"),
        symlink("again", "./latest"),
        file("blobs/1", b"weights"),
        hardlink("copy", "blobs/1"),
    ]
    unpack_bytes(tar(*entries), tmp_path / "model")
    root = tmp_path / "model"
    assert (root / "again" / "model.bin").read_bytes() == (root / "copy").read_bytes() == b"weights"
    assert (root / "latest").readlink() == Path("snapshots/main")


# --- archives as they should not be --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([file("/etc/passwd")], "absolute path"),
        ([file("../x")], r"part that is '\.\.'"),
        ([file("a/../../x")], r"part that is '\.\.'"),
        ([file("a/../x")], r"part that is '\.\.'"),
        ([file("n" * 256)], "longer than 255 bytes"),
        ([file("ü" * 128)], "longer than 255 bytes"),
        ([file(".")], "no file name"),
        ([special("f", tarfile.FIFOTYPE)], "neither a file nor a directory nor a link"),
        ([special("c", tarfile.CHRTYPE)], "neither a file nor a directory nor a link"),
        ([special("b", tarfile.BLKTYPE)], "neither a file nor a directory nor a link"),
        ([special("z", b"Z")], "neither a file nor a directory nor a link"),
        ([symlink("l", "/etc/passwd")], "points outside"),
        ([symlink("l", "../x")], "points outside"),
        ([symlink("l", "..")], "points outside"),
        ([symlink("d/l", "../../x")], "points outside"),
        ([symlink("l", "missing")], "leads nowhere"),
        ([symlink("l", "l")], "leads nowhere"),
        ([symlink("a", "b"), symlink("b", "a")], "leads nowhere"),
        ([hardlink("l", "/etc/passwd")], "absolute path"),
        ([hardlink("l", "../../etc/passwd")], r"part that is '\.\.'"),
        ([hardlink("l", "missing")], "leads nowhere"),
        ([file("a"), file("a/b")], "both a directory and something else"),
        ([file("a/b"), file("a")], "both a file and a directory"),
        ([symlink("a", "b"), file("b"), file("a")], "occurs twice"),
        ([file("b"), symlink("a", "b"), symlink("a", "b")], "occurs twice"),
    ],
)
def test_an_entry_that_is_not_allowed_refuses_the_whole(
    tmp_path: Path, entries: list[Entry], reason: str
) -> None:
    refuse(tgz(file("good"), *entries, file("also good")), tmp_path, reason)


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    victim = tmp_path / "victim"
    victim.mkdir()
    refuse(
        tgz(symlink("l", str(victim)), file("l/x")),
        tmp_path / "place",
        "both a directory|occurs twice|outside",
    )
    refuse(
        tgz(directory("d"), symlink("l", "d"), symlink("l/x", "../d")), tmp_path / "place", "both a directory"
    )
    assert list(victim.iterdir()) == []


def test_a_link_through_links_cannot_climb_out(tmp_path: Path) -> None:
    """Read as text `a/b/up/../../x` is `a/x`; followed, it is two levels above the archive."""
    (tmp_path / "p" / "q").mkdir(parents=True)
    (tmp_path / "secret").write_text("s")
    data = tgz(directory("a/b"), symlink("a/b/up", "../.."), symlink("l", "a/b/up/../../../secret"))
    with pytest.raises(ArtifactError, match="points outside"):
        unpack_bytes(data, tmp_path / "p" / "q" / "model")
    data = tgz(directory("a/b/c"), symlink("a/b/c/up", "../../.."), symlink("l", "a/b/c/up/../../../secret"))
    with pytest.raises(ArtifactError, match="points outside"):
        unpack_bytes(data, tmp_path / "p" / "q" / "model")


def test_a_bomb_stops_at_the_limit(tmp_path: Path) -> None:
    refuse(tgz(file("zeros", bytes(3 * MIB))), tmp_path, "larger than 1048576 bytes")
    refuse(tgz(*(file(f"{n}", bytes(MIB // 2)) for n in range(3))), tmp_path, "larger than 1048576 bytes")
    refuse(gzip.compress(tar(file("a")) + bytes(40 * MIB), 1), tmp_path, "larger than")
    unpack_bytes(tgz(file("zeros", bytes(MIB))), tmp_path / "model", MIB)


def test_a_sparse_file_counts_with_its_holes(tmp_path: Path) -> None:
    info = tarfile.TarInfo("sparse")
    info.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.size": str(10**15),
        "GNU.sparse.map": "0,1",
        "GNU.sparse.name": "sparse",
    }
    info.size = 1
    refuse(tgz((info, b"x")), tmp_path, "larger than 1048576 bytes")


GIB = 1024 * MIB


def holed(path: Path, parts: dict[int, bytes], size: int) -> Path:
    with path.open("wb") as sparse:
        for offset, data in parts.items():
            sparse.seek(offset)
            sparse.write(data)
        sparse.truncate(size)
    return path


KINDS = [
    pytest.param(["--format=gnu"], id="old GNU"),
    *(
        pytest.param(["--format=pax", f"--sparse-version={each}"], id=f"PAX {each}")
        for each in ("0.0", "0.1", "1.0")
    ),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("parts", "size"),
    [
        ({}, 4 * GIB),
        ({0: b"head"}, 4 * GIB),
        ({4 * GIB - 4: b"tail"}, 4 * GIB),
        ({MIB * 10 * n: b"%d" % n for n in range(100)}, 4 * GIB),
    ],
)
def test_the_holes_of_a_sparse_file_take_no_blocks(
    tmp_path: Path, kind: list[str], parts: dict[int, bytes], size: int
) -> None:
    if shutil.which("tar") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("tar is missing")
        pytest.skip("tar is missing")
    holed(tmp_path / "sparse", parts, size)
    command = ["tar", "--create", "--gzip", "--sparse", *kind, "--file=a.tar.gz", "sparse"]
    subprocess.run(command, cwd=tmp_path, check=True)
    (tmp_path / "place").mkdir()
    with pytest.raises(ArtifactError, match="larger than"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "place" / "model", max_bytes=size - 1)
    assert list((tmp_path / "place").iterdir()) == []
    unpack(tmp_path / "a.tar.gz", tmp_path / "place" / "model", max_bytes=size)
    status = (tmp_path / "place" / "model" / "sparse").stat()
    assert status.st_size == size
    assert status.st_blocks * 512 <= 64 * 1024 * (len(parts) + 1)
    with (tmp_path / "place" / "model" / "sparse").open("rb") as unpacked:
        for offset, data in parts.items():
            unpacked.seek(offset)
            assert unpacked.read(len(data) + 1).strip(b"\0") == data


def sparse(size: int, parts: str, data: bytes = b"x") -> Entry:
    info, content = file("sparse", data)
    info.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.size": str(size),
        "GNU.sparse.map": parts,
        "GNU.sparse.name": "sparse",
    }
    return info, content


@pytest.mark.parametrize(
    ("size", "parts"),
    [(1000, "0,2000"), (1000, "999,2"), (1000, "500,1,0,1"), (1000, "0,2,1,1"), (1000, "-1,1"), (-1, "0,1")],
)
def test_a_map_of_parts_that_cannot_be_is_refused(tmp_path: Path, size: int, parts: str) -> None:
    refuse(tgz(sparse(size, parts)), tmp_path, "not a valid archive")


def test_a_sparse_file_whose_data_is_missing_is_refused(tmp_path: Path) -> None:
    refuse(tgz(sparse(100_000, "0,90000")), tmp_path, "not a valid archive")


def test_an_endless_map_of_parts_is_not_kept_in_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("sparse")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s"}
    data = b"99999999\n" + b"0\n" * (2 * MIB + MIB // 8)
    info.size = len(data)
    refuse(tgz((info, data)), tmp_path, "headers of more than 4194304 bytes", max_bytes=64 * MIB)


def test_many_global_headers_are_refused(tmp_path: Path) -> None:
    headers = tarfile.TarInfo.create_pax_global_header({f"k{n}": "v" for n in range(1001)})
    refuse(gzip.compress(headers + tar(file("a"))), tmp_path, "more than 1000 global headers")
    headers = tarfile.TarInfo.create_pax_global_header({"comment": "a commit of git"})
    unpack_bytes(gzip.compress(headers + tar(file("a"))), tmp_path / "model")


def test_the_disk_is_not_filled(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    free = disk.f_bavail * disk.f_frsize
    archive = tgz(file("zeros", bytes(MIB)))
    with pytest.raises(ArtifactError, match=r"bytes free \(setting disk_reserve_bytes\)"):
        unpack(io.BytesIO(archive), tmp_path / "model", max_bytes=GIB, keep_free_bytes=2 * free)
    assert list(tmp_path.iterdir()) == []
    unpack(io.BytesIO(archive), tmp_path / "model", max_bytes=GIB, keep_free_bytes=free // 2)


def test_too_many_files_or_directories_are_refused(tmp_path: Path) -> None:
    refuse(tgz(*(file(f"{n}", b"") for n in range(5))), tmp_path, "more than 4 files", max_files=4)
    refuse(tgz(file("a/b/c/d/e", b"")), tmp_path, "more than 4 files", max_files=4)
    refuse(tgz(file("a"), *(symlink(f"{n}", "a") for n in range(4))), tmp_path, "more than 4", max_files=4)
    unpack_bytes(tgz(*(file(f"{n}", b"") for n in range(4))), tmp_path / "model", max_files=4)


def test_a_huge_header_is_not_read_into_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 4 * 1024 * MIB
    refuse(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(8 * MIB)), tmp_path, "not a valid archive")


def test_endless_headers_before_one_entry_are_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type = tarfile.XHDTYPE
    refuse(gzip.compress(info.tobuf(tarfile.USTAR_FORMAT) * 5000), tmp_path, "not a valid archive")


@pytest.mark.parametrize("data", [b"", b"x", b"\x1f\x8b", b"\x1f\x8b" + b"junk" * 300, b"no" * 900])
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    refuse(data, tmp_path, "not a valid archive")


def test_an_archive_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    data = tgz(file("a", os.urandom(2000)), file("b", os.urandom(2000)))
    for length in range(0, len(data), 97):
        refuse(data[:length], tmp_path, "not a valid archive")
    refuse(data[:-1], tmp_path, "not a valid archive")


def test_damage_that_only_the_checksum_shows_is_refused(tmp_path: Path) -> None:
    data = bytearray(tgz(file("a")))
    data[-6] ^= 1
    refuse(bytes(data), tmp_path, "not a valid archive: CRC")


def test_a_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    data = bytearray(tar(file("a"), file("b")))
    data[1024 + 150] ^= 1
    refuse(bytes(data), tmp_path, "header .* is damaged")


def test_a_directory_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").write_text("old")
    with pytest.raises(ArtifactError, match="cannot be unpacked"):
        unpack_bytes(tgz(file("new")), tmp_path / "model")
    assert files_of(tmp_path) == {"model/old": b"old"}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2559), st.binary(min_size=1, max_size=12)), max_size=6))
def test_a_damaged_archive_never_does_anything_but_fail_or_succeed(
    tmp_path: Path, damage: list[tuple[int, bytes]]
) -> None:
    data = bytearray(tar(file("a", b"1"), symlink("l", "a"), format=tarfile.GNU_FORMAT)[:2560])
    for position, piece in damage:
        data[position : position + len(piece)] = piece
    model = tmp_path / os.urandom(8).hex()
    try:
        unpack_bytes(bytes(data), model)
    except ArtifactError:
        assert not model.exists()


def test_the_text_for_an_endpoint_is_awss_with_our_reason() -> None:
    assert extraction_failure("container_1", "s3://b/m.tar.gz", ArtifactError("it is empty")) == (
        'Failed to extract model data archive for container "container_1" from URL "s3://b/m.tar.gz". '
        "Please ensure that the object located at the URL is a valid tar.gz archive. Reason: it is empty."
    )


# --- uncompressed objects ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "prefix", "name"),
    [
        ("models/m.bin", None, "m.bin"),
        ("m.bin", None, "m.bin"),
        ("models/a/m.bin", "models/", "a/m.bin"),
        ("models/" + "n" * 255, "models/", "n" * 255),
        ("models/.hidden", "models/", ".hidden"),
        ("models/a b", "models/", "a b"),
    ],
)
def test_an_object_becomes_a_file_name(key: str, prefix: str | None, name: str) -> None:
    assert relative_name(key, prefix) == name


@pytest.mark.parametrize(
    ("key", "prefix", "reason"),
    [
        ("models/m", "models", "does not end with a slash"),
        ("other/m", "models/", "is not below the prefix"),
        ("models/", "models/", "is empty"),
        ("models/folder/", "models/", "is empty"),
        ("models//m", "models/", "is empty"),
        ("models/ /m", "models/", "is empty"),
        ("models/../m", "models/", r"is '\.\.'"),
        ("models/./m", "models/", r"is '\.'"),
        ("models/a\0b", "models/", "null byte"),
        ("models/" + "n" * 256, "models/", "longer than 255 bytes"),
        ("models/", None, "is empty"),
        ("a/..", None, r"is '\.\.'"),
    ],
)
def test_names_that_aws_forbids_are_refused(key: str, prefix: str | None, reason: str) -> None:
    with pytest.raises(ArtifactError, match=reason):
        relative_name(key, prefix)


def test_a_name_cannot_be_a_file_and_a_directory() -> None:
    check_no_clash(["a/b", "a/c", "b", "ab"])
    with pytest.raises(ArtifactError, match="'weights' is both a file and a directory"):
        check_no_clash(["weights/part1", "weights"])
    with pytest.raises(ArtifactError, match="'a' occurs twice"):
        check_no_clash(["a", "a"])


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (bz2.compress(b"x" * 100), "compressed with bzip2"),
        (lzma.compress(b"x" * 100), "compressed with xz"),
        (b"\x28\xb5\x2f\xfd\x00\x00", "compressed with zstd"),
        (b"PK\x03\x04\x14\x00", "a zip file"),
        (pickle.dumps({"a": 1}), "a pickle"),
    ],
)
def test_what_is_no_archive_of_sagemakers_is_named(tmp_path: Path, data: bytes, kind: str) -> None:
    refuse(data, tmp_path, f"it is {kind}; pack the model with: tar -czf model.tar.gz -C DIRECTORY .")
