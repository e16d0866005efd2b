"""Webdataset tars, made by friends and by others."""

import json
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from bezoar.data import ImageSource, noise_images, open_source
from bezoar.data.choice import encode_png
from bezoar.errors import EmptyError, InputError

PNGS = [encode_png(image) for image in noise_images(4).images]
NO_FILE = "not a plain file but a link, pipe or device"
NO_LABEL = "it has no label that can be read"


def member(name: str, content: bytes = b"", **fields: Any) -> tuple[object, ...]:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    for key, value in fields.items():
        setattr(header, key, value)
    return header, BytesIO(content)


def archive(path: Path, *members: tuple[object, ...]) -> Path:
    with tarfile.open(path, "w") as tar:
        for one in members:
            tar.addfile(*one)  # type: ignore[arg-type]
    return path


def pair(key: str, label: str, index: int = 0) -> list[tuple[object, ...]]:
    return [member(f"{key}.png", PNGS[index]), member(f"{key}.cls", label.encode())]


def labels(source: ImageSource) -> dict[str, int]:
    data, _ = source.read(image_size=(8, 8))
    return dict(zip(data.ids, data.labels.tolist(), strict=True))


def reasons(source: ImageSource) -> dict[str, str]:
    return {u.id: u.reason for u in source.read(image_size=(8, 8))[1]}


def test_labels_come_from_cls_or_json(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "a.tar",
        member("README"),
        *pair("d.x/1", "2"),
        member("2.json", json.dumps({"label": 1}).encode()),
        member("2.jpg", PNGS[1]),
        member("2.seg.png", PNGS[1]),
        *pair("./3", " 0\n"),
    )
    source = open_source(path)
    assert (source.format, source.class_names) == ("webdataset", ("0", "1", "2"))
    assert labels(source) == {"a.tar#d.x/1": 2, "a.tar#2": 1, "a.tar#./3": 0}
    assert source.num_images == 3


def test_labels_may_be_texts_or_missing(tmp_path: Path) -> None:
    words = archive(tmp_path / "a.tar", *pair("1", "dog"), *pair("2", "cat"))
    assert labels(open_source(words)) == {"a.tar#1": 1, "a.tar#2": 0}
    bare = archive(tmp_path / "b.tar", member("1.png", PNGS[0]), member("x.txt", b"?"))
    source = open_source(bare)
    assert source.class_names == ()
    assert labels(source) == {"b.tar#1": -1}


def test_one_bad_label_does_not_end_the_stream(tmp_path: Path) -> None:
    deep = b"[" * 100_000
    path = archive(
        tmp_path / "a.tar",
        *pair("1", "0"),
        *pair("2", "none of your business"),
        *pair("3", ""),
        member("4.png", PNGS[0]),
        member("5.json", deep),
        member("5.png", PNGS[0]),
        member("6.json", b'{"label": [1]}'),
        member("6.png", PNGS[0]),
        *pair("7", "1"),
    )
    source = open_source(path)
    assert labels(source) == {"a.tar#1": 0, "a.tar#7": 1}
    assert reasons(source) == {f"a.tar#{i}": NO_LABEL for i in range(2, 7)}


@pytest.mark.parametrize("label", ["-3", "999999999"])
def test_labels_outside_any_range_are_refused(tmp_path: Path, label: str) -> None:
    path = archive(tmp_path / "a.tar", *pair("1", "0"), *pair("2", label))
    with pytest.raises(InputError, match=f"got {label} for 'a.tar#2'"):
        open_source(path)


def test_a_key_that_comes_twice_is_refused(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "a.tar", *pair("1", "0"), *pair("2", "0"), *pair("1", "1")
    )
    with pytest.raises(InputError, match=r"every key once in a.tar, got '1' more than"):
        open_source(path)
    path = archive(tmp_path / "b.tar", *pair("1", "0"), member("1.png", PNGS[1]))
    with pytest.raises(InputError, match=r"got '1\.png' more than once"):
        open_source(path)


def test_two_archives_may_use_the_same_keys(tmp_path: Path) -> None:
    archive(tmp_path / "a.tar", *pair("1", "0"))
    archive(tmp_path / "b.tar", *pair("1", "1"))
    assert labels(open_source(tmp_path)) == {"a.tar#1": 0, "b.tar#1": 1}


def test_links_and_devices_are_listed_and_never_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(PNGS[0])
    kinds: dict[str, dict[str, Any]] = {
        "link": {"type": tarfile.SYMTYPE, "linkname": str(tmp_path / "secret.png")},
        "hard": {"type": tarfile.LNKTYPE, "linkname": "good.png"},
        "pipe": {"type": tarfile.FIFOTYPE},
        "disk": {"type": tarfile.BLKTYPE, "devmajor": 8},
    }
    path = archive(
        tmp_path / "a.tar",
        member("good.png", PNGS[0]),
        *(member(f"{name}.png", **fields) for name, fields in kinds.items()),
        member("../up.png", PNGS[1]),
        member("/root.png", PNGS[2]),
        member("\udcff.png", PNGS[2]),
        member("folder.png", type=tarfile.DIRTYPE),
    )
    source = open_source(path)
    assert list(labels(source)) == ["a.tar#good", "a.tar#../up", "a.tar#/root"]
    assert reasons(source) == {f"a.tar#{name}": NO_FILE for name in kinds} | {
        "a.tar#\\xff": "its name is not UTF-8"
    }


def test_a_sparse_member_is_not_unpacked(tmp_path: Path) -> None:
    sparse = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1"}
    sparse |= {"GNU.sparse.size": str(1 << 45), "GNU.sparse.map": "0,10"}
    sparse |= {"GNU.sparse.name": "bomb.png"}
    path = archive(
        tmp_path / "a.tar",
        member("bomb.png", PNGS[0][:10], pax_headers=sparse),
        member("good.png", PNGS[0]),
    )
    source = open_source(path)
    assert list(labels(source)) == ["a.tar#good"]
    assert reasons(source) == {"a.tar#bomb": NO_FILE}


def test_large_members_are_refused_unread(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", member("1.png", bytes(17 << 20)))
    (record,) = open_source(path, max_pixels=1).records()
    assert record.data is None
    assert str(record.reason).startswith("a file of 17,825,792 bytes; at most")


def test_what_follows_damage_is_reported_and_other_archives_are_read(
    tmp_path: Path,
) -> None:
    members = [m for i in range(4) for m in pair(str(i), str(i), i)]
    whole = archive(tmp_path / "a.tar", *members).read_bytes()
    archive(tmp_path / "b.tar", *pair("x", "0"))
    header = whole.index(b"2.png")
    (tmp_path / "a.tar").write_bytes(
        whole[:header] + b"\xff" * 512 + whole[header + 512 :]
    )
    source = open_source(tmp_path)
    assert labels(source) == {"a.tar#0": 0, "a.tar#1": 1, "b.tar#x": 0}
    (found,) = reasons(source).items()
    assert found == ("a.tar#", f"the archive is damaged from byte {header:,} on")
    assert source.num_images == 4
    (tmp_path / "a.tar").write_bytes(whole[: header + 512 + 20])  # cut in an image
    assert reasons(open_source(tmp_path)) == {
        "a.tar#2": "it has no label that can be read",
        "a.tar#": "the archive is damaged from here on (unexpected end of data)",
    }


def negative(kind: bytes) -> bytes:
    """Return a header whose size is -1024, which leads back to what came before."""
    header = bytearray(tarfile.TarInfo("1.png").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + b"\xfc\x00"
    header[156:157] = kind
    if kind == tarfile.GNUTYPE_SPARSE:  # tells another size, which is positive
        header[483:495] = b"%011o\0" % 10
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def pax(content: bytes) -> bytes:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(content)
    return header.tobuf() + content + bytes(-len(content) % 512)


MADE_UP = {
    "negative": negative(tarfile.REGTYPE),
    "negative sparse": negative(tarfile.GNUTYPE_SPARSE),
    "negative long name": negative(tarfile.GNUTYPE_LONGNAME),
    "negative pax": negative(tarfile.XHDTYPE),
    "many headers": pax(b"12 path=a.b\n") * 3000,
    "odd numbers": pax(b"28 GNU.sparse.map=here,there\n") + negative(tarfile.REGTYPE),
}


@pytest.mark.parametrize("name", MADE_UP)
def test_headers_that_somebody_made_up_end_the_archive(
    tmp_path: Path, name: str
) -> None:
    good = archive(tmp_path / "a.tar", member("0.png", PNGS[0])).read_bytes()
    end = 512 + len(PNGS[0]) + -len(PNGS[0]) % 512
    (tmp_path / "a.tar").write_bytes(good[:end] + MADE_UP[name] + bytes(2048))
    source = open_source(tmp_path / "a.tar")
    assert list(labels(source)) == ["a.tar#0"]
    assert "damaged" in reasons(source)["a.tar#"]
    assert source.num_images == 2


def test_a_field_can_be_asked_for(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "a.tar",
        member("1.left.png", PNGS[0]),
        member("1.right.png", PNGS[1]),
        member("1.json", b'{"kind": "b", "label": 0}'),
    )
    with pytest.raises(EmptyError, match=r"expected images \(png, jpg"):
        open_source(path)
    source = open_source(path, image_column="right.png", label_column="kind")
    data, _ = source.read()
    assert data.images[0].equal(noise_images(4).images[1])
    assert data.class_names == ("b",)


@pytest.mark.parametrize("content", [b"", b"words, many words " * 99, b"\x1f\x8b\x08"])
def test_a_file_that_is_no_tar_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(InputError, match="expected a tar file that is not compressed"):
        open_source(tmp_path / "a.tar")
