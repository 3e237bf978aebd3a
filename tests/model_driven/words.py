"""For each pattern of the models: what matches it, at any length, and what does not. Written by hand.

They are judged by reading the pattern as Java does, not by the server's translation of it, which they test.
"""

from dataclasses import dataclass
from itertools import cycle, islice


@dataclass(frozen=True)
class Words:
    """`start`, as much of `filler` as is wanted, `end`. `bad` values break the pattern."""

    start: str
    filler: str
    end: str
    bad: tuple[str, ...]

    def of_length(self, length: int) -> str:
        """A value that matches, as near to that length as one can be from above."""
        rest = length - len(self.start) - len(self.end)
        return self.start + "".join(islice(cycle(self.filler), max(rest, 0))) + self.end

    @property
    def shortest(self) -> int:
        return len(self.start) + len(self.end)


ANY = Words("", "a é☃\n", "", ())
"""Where the model has no pattern."""

_LINE_ENDS = ("a\nb", "a\u2028b")
_NOT_NAMES = ("-a", "a-", "a_b", "a b", "aé", "a\n")
_NAME = Words("a", "Z-9", "b", _NOT_NAMES)
_HEADER_NAME = Words("a", "Z-9", "b", ("-a", "a-", "a_b", "a b", "aé"))
_URI = Words("s3://b", "/aé ~", "", ("b/k", "http://b/k", "S3://b/k", "s3:///k", "s3://", "s3://b/\n"))
_ONE_LETTER_BUCKET = Words("s3://b", "/k~é", "", ("b/k", "http://b/k", "s3:///k", "s3://", "s3://b/\n"))
_LETTERS = Words("", "é_Ж.:/ =+-@٣", "", ("a#b", "a,b", "😀", "a\tb"))
_PRINTABLE = Words("x", " ~a", "", (" x", "é", "x\ty"))
_MEDIA_TYPE = ("a", "/a", "a/", "a/b/c", "a b/c", "-a/b")
_ROLE = (
    "arn:aws:iam::12345678901:role/ab",
    "arn:aws:iam::123456789012:user/a",
    "arn:gcp:iam::123456789012:role/a",
    "arn:aws:iam::123456789012:role/a b",
)

WORDS: dict[str, Words] = {
    r"[\w+=,.@-]+": Words("", "aZ_9+=,.@-", "", ("a b", "a/b", "aé", "a#")),
    r".*": Words("", "a é☃~", "", _LINE_ENDS),
    r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}": Words("a", "Z9", "", _NOT_NAMES),
    r"[\u0009\u000A\u000D\u0020-\u00FF]+": Words("", "a \t\né", "", ("a\x00", "☃", "a\x1f")),
    r"[\u0020-\u00FF]+": Words("", "a é~", "", ("a\n", "☃", "a\tb")),
    r"(https|s3)://([^/]+)/?(.*)": _URI,
    r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)": _LETTERS,
    r"[\p{L}\p{Z}\p{N}_.:/=+\-@]+": _LETTERS,
    r"[\p{L}\p{Z}\p{N}_.:/=+\-@]*": _LETTERS,
    r"\p{ASCII}*": Words("", "".join(map(chr, range(0x21, 0x7F))), "", ("aé",)),
    r"[a-zA-Z0-9]([\-a-zA-Z0-9]*[a-zA-Z0-9])?": _NAME,
    r"^[a-zA-Z0-9](-*[a-zA-Z0-9])*": _HEADER_NAME,
    r"\A\S[\p{Print}]*\z": _PRINTABLE,
    r"(https|s3)://([^/])/?(.*)": _ONE_LETTER_BUCKET,
    r"[a-zA-Z0-9:/_-]*": Words("", "aZ9:/_-", "", ("a b", "aé", "a.b", "a\n")),
    r"[-0-9a-zA-Z]+": Words("", "aZ9-", "", ("a b", "a_b", "é", "a\n")),
    r"((/[A-Za-z0-9\.,\+@=_-]+)*)/": Words("/a", "b", "/", ("a", "/a", "a/", "//", "/a b/", "/é/")),
    r"[a-zA-Z0-9-]+": Words("", "aZ9-", "", ("a b", "a_b", "é", "a\n")),
    r"arn:aws[a-z-]*:sagemaker:[a-z0-9-]*:[0-9]{12}:.+": Words(
        "arn:aws:sagemaker:eu-central-1:111122223333:m",
        "odel/",
        "",
        (
            "model/a",
            "arn:aws:s3:eu-central-1:111122223333:a",
            "arn:aws:sagemaker:eu-central-1:1:a",
            "arn:aws:sagemaker::111122223333:",
            "arn:aws:sagemaker::111122223333:a\nb",
        ),
    ),
    r"[\u0009\u000A\u000D\u0020-\u007E\u0085\u00A0-\uD7FF\uE000-\uFFFD\u10000-\u10FFFF]+": Words(
        "", "a \t☃", "", ("a\x00", "a\x0b", "a\x1fb")
    ),
    r"(\u002F)|(\u002F[\u0021-\u007E]+\u002F)": Words(
        "/a", "~!", "/", ("a", "/a", "a/", "//", "/a b/", "/é/")
    ),
    r"[\w]+": Words("", "aZ_9", "", ("a b", "a-b", "é")),
    r"[\S]+": Words("", "aé:/~", "", ("a b", "a\n", "\t")),
    r"[A-Za-z0-9\.\-_]+": Words("", "aZ9.-_", "", ("a b", "a/b", "é", "a\n")),
    r"[a-zA-Z_][a-zA-Z0-9_]*": Words("_", "aZ9_", "", ("9a", "a-b", "a b", "é")),
    r"[\S\s]*": Words("", "a é☃\n\u2028", "", ()),
    (
        r"(arn:aws[a-z\-]*:sagemaker:[a-z0-9\-]*:[0-9]{12}:[a-z\-]*\/)?([a-zA-Z0-9]([a-zA-Z0-9-]){0,62})"
        r"(?<!-)(\/[0-9]{1,9})?"
    ): Words(
        "arn:aws",
        "-cn",
        ":sagemaker:eu-central-1:111122223333:model-package/a-b/1",
        ("a-", "-a", "a/b", "a/1234567890", "arn:aws:sagemaker:eu-central-1:1:model-package/a", "a_b"),
    ),
    r"/(?!.*\.\.)[a-zA-Z0-9/_.\-]+": Words("/a", "b/_-", "", ("a", "/", "/a..b", "/a b", "/é")),
    r"arn:aws[a-z\-]*:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+": Words(
        "arn:aws:iam::123456789012:role/a", "Z_9+=,.@-/", "", _ROLE
    ),
    r"arn:aws[a-z\-]*:sagemaker:[a-z0-9\-]*:[0-9]{12}:[a-z0-9\-]{1,14}/.*": Words(
        "arn:aws:sagemaker:eu-central-1:111122223333:reserved/",
        "aé ",
        "",
        (
            "arn:aws:sagemaker:eu-central-1:111122223333:reserved",
            "arn:aws:sagemaker:eu-central-1:1:reserved/a",
            "arn:aws:sagemaker:eu-central-1:111122223333:far-too-long-a-kind/a",
        ),
    ),
    r"mig-[0-9]+g\.[0-9]+gb([+-][a-z0-9.]+)*": Words(
        "mig-1g.5gb+a", "9.", "", ("mig-1g", "mig-1g.5gb+", "MIG-1g.5gb", "mig-g.5gb")
    ),
    r"[a-zA-Z0-9](-*[a-zA-Z0-9])*\/[a-zA-Z0-9](-*[a-zA-Z0-9.])*": Words(
        "a/b", "-Z9.", "c", (*_MEDIA_TYPE, "a/b+c")
    ),
    r"[a-zA-Z0-9](-*[a-zA-Z0-9])*\/[a-zA-Z0-9](-*[a-zA-Z0-9+.])*": Words(
        "a/b", "-Z9+.", "c", (*_MEDIA_TYPE, "a/b_c")
    ),
    r"arn:aws[a-z\-]*:sns:[a-z0-9\-]*:[0-9]{12}:[a-zA-Z0-9_.-]+": Words(
        "arn:aws:sns:eu-central-1:111122223333:t",
        "opic_.-9",
        "",
        ("t", "arn:aws:sqs:eu-central-1:111122223333:t", "arn:aws:sns:eu-central-1:111122223333:a/b"),
    ),
    r".*(?:[ \r\n\t].*)*.*": Words("", "a é☃\n", "", ("a\u2028b",)),
    r"(?!\s*$).+": Words("a", " é", "", (" ", "a\nb")),
    r"[\w+=/:,.@-]+": Words("", "aZ_9+=/:,.@-", "", ("a b", "a#b", "é")),
    r"[\w+=,.@-]*": Words("", "aZ_9+=,.@-", "", ("a b", "a/b", "é")),
    r"[\w+=/:,.@-]*": Words("", "aZ_9+=/:,.@-", "", ("a b", "é", "a#b")),
    r"[\w+=,.@:\/-]*": Words("", "aZ_9+=,.@:/-", "", ("a b", "é", "a#b")),
    r"[\d]*": Words("", "0123456789", "", ("a23456", "12 456", "12345٣")),
    r"\u002F[\u0021-\u007F]*": Words("/", "a~!/", "", ("a", "/a b", "/é")),
    r"[\u0009\u000A\u000D\u0020-\u007E\u00A1-\u00FF]*": Words("", "a \t\né", "", ("a\x00", "☃", "\x7f")),
    r"^[a-zA-Z0-9]([\-a-zA-Z0-9]*[a-zA-Z0-9])?$": _HEADER_NAME,
    r"[\s\S]+": Words("", "a é☃\n\u2028", "", ()),
    r"[\w]*": Words("", "aZ_9", "", ("a b c d e f g h i", "é" * 20, "a" * 19 + "-")),
    r"v[1-9][0-9]*(\.[A-Za-z0-9-]*)?": Words("v1", "09", "", ("1", "v0", "v1,2", "v", "V1")),
    r"^(NEW_SESSION)$|^[a-zA-Z0-9](-*[a-zA-Z0-9])*$": Words(
        "a", "Z-9", "b", ("-a", "a-", "a_b", "aé", "OLD_SESSION", "NEW_SESSIONS")
    ),
    r"^(https|s3)://([^/]+)/?(.*)$": Words(
        "s3://b", "/a~", "", ("b/k", "http://b/k", "S3://b/k", "s3:///k", "s3://", "s3:/b/k")
    ),
    r"^(?!s3:|https:)[a-zA-Z0-9!_.*'()/-]+$": Words("", "aZ9!_.*'()/-", "", ("s3://a", "a b", "a:b", "aé")),
    r"^(?!.*\..*\.)[a-zA-Z0-9][a-zA-Z0-9-_\.]*$": Words(
        "a", "Z9-_", "", ("-a", ".a", "a.b.c", "a/b", "a b", "aé")
    ),
    r"^[a-zA-Z0-9](-*[a-zA-Z0-9])*$": _HEADER_NAME,
}
