"""XML that clients of S3 send and that says what they may do: read here, and rendered anew for the S3.

Two readers of one document may understand it differently, so the S3 never gets the client's own.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from moorage.errors import S3Error

XML: Final = '<?xml version="1.0" encoding="UTF-8"?>'
NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"

Tags = Sequence[tuple[str, str]]

_REFUSED: Final = re.compile("<!(?:DOCTYPE|ENTITY)|<[^<>]{4096}", re.IGNORECASE)
"""Definitions, and tags of a length that only attributes without end have."""
_MOST_ELEMENTS: Final = 8000
"""More than a document with 1000 objects has."""
_PIECE: Final = 64 * 1024
"""After so many characters it shows whether there are too many elements."""


class _Bounded(ElementTree.TreeBuilder):
    """Takes as many elements as a document may have: a million of empty ones would take seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._left = _MOST_ELEMENTS

    def start(self, tag: str, attrs: dict[str, str], /) -> ElementTree.Element:
        self._left -= 1
        if self._left < 0:
            raise ValueError("too many elements")
        return super().start(tag, attrs)


def parse(body: bytes, root: str) -> ElementTree.Element:
    """The root element, which has this name. Raises `S3Error`."""
    try:
        # Whatever encoding it names: in another, what is refused next would look different.
        text = body.decode()
        if _REFUSED.search(text):
            raise malformed()
        parser = ElementTree.XMLParser(target=_Bounded())
        for start in range(0, len(text), _PIECE):
            parser.feed(text[start : start + _PIECE])
        element = parser.close()
    except (ElementTree.ParseError, ValueError, LookupError):
        raise malformed() from None
    if name_of(element) != root:
        raise malformed()
    return element


def name_of(element: ElementTree.Element) -> str:
    return str(element.tag).removeprefix(f"{{{NAMESPACE}}}")


def values_of(element: ElementTree.Element, names: Sequence[str]) -> dict[str, str]:
    """The texts of the children, each of which has one of the names, and occurs once. Raises `S3Error`."""
    values: dict[str, str] = {}
    for child in element:
        name = name_of(child)
        if name in values or len(child) or name not in names:
            raise malformed()
        values[name] = child.text or ""
    return values


def read_tagging(body: bytes) -> Tags:
    """The tags of PutObjectTagging. Raises `S3Error`."""
    tags = []
    sets = list(parse(body, "Tagging"))
    if [name_of(each) for each in sets] != ["TagSet"]:
        raise malformed()
    for element in sets[0]:
        values = values_of(element, ("Key", "Value"))
        if name_of(element) != "Tag" or "Key" not in values:
            raise malformed()
        tags.append((values["Key"], values.get("Value", "")))
    return tags


def render_tagging(tags: Tags) -> bytes:
    listed = "".join(
        f"<Tag><Key>{escaped(key)}</Key><Value>{escaped(value)}</Value></Tag>" for key, value in tags
    )
    return f'{XML}<Tagging xmlns="{NAMESPACE}"><TagSet>{listed}</TagSet></Tagging>'.encode()


def read_bucket_configuration(body: bytes) -> Mapping[str, str]:
    """What CreateBucket says of the bucket. Raises `S3Error`."""
    if not body.strip():
        return {}
    root = parse(body, "CreateBucketConfiguration")
    for child in root:
        if name_of(child) != "LocationConstraint" and (len(child) or (child.text or "").strip()):
            raise S3Error(
                "NotImplemented",
                501,
                f"CreateBucket does not have {name_of(child)} on this server: it has general purpose buckets only.",
            )
    constraints = [child.text or "" for child in root if name_of(child) == "LocationConstraint"]
    if len(constraints) > 1:
        raise malformed()
    return {"LocationConstraint": constraints[0]} if constraints and constraints[0] else {}


def escaped(text: str) -> str:
    """As the content of an element. White space is kept as it is only when it is written as a reference."""
    return escape(text, {"\r": "&#13;", "\n": "&#10;", "\t": "&#9;"})


def malformed() -> S3Error:
    return S3Error(
        "MalformedXML",
        400,
        "The XML you provided was not well-formed or did not validate against our published schema",
    )
