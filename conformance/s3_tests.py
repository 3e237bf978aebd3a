"""Runs the tests of ceph/s3-tests that are about what this S3 has, and prints what came of them.

Usage: python -m conformance.s3_tests CHECKOUT [--url URL --main KEYS --alt KEYS] [--json FILE] [-- ARGUMENTS]

CHECKOUT is a copy of https://github.com/ceph/s3-tests, which is not part of this repository. Without --url a server
of its own is started, with two accounts. Against another one, `--main` and `--alt` are the keys of two accounts that
may do everything in S3, as ACCOUNT:KEY:SECRET. What is after `--` goes to pytest, for example `-k multipart`.

Which tests are run, and in which group each counts, is decided in `s3_selection.py`. They run in an environment of
their own in `conformance/.build/s3-tests`. The exit status is 1 if a test has failed, and 2 if they cannot be run.
"""

import argparse
import configparser
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from conformance import s3_selection
from tests.servers import ACCOUNT, MoorageServer

HERE = Path(__file__).parent
ENVIRONMENT = HERE / ".build" / "s3-tests"
PACKAGES = (
    "boto3",
    "gevent",
    "httplib2",
    "isodate",
    "lxml",
    "munch",
    "pytest",
    "pytest-timeout",
    "pytz",
    "requests",
)
FILES = ("s3tests/functional/test_s3.py", "s3tests/functional/test_headers.py")
_TEST_SECONDS = 120


@dataclass(frozen=True)
class Keys:
    """The access key of an account's root."""

    account_id: str
    access_key_id: str
    secret_access_key: str

    @classmethod
    def parse(cls, text: str) -> "Keys":
        account_id, key, secret = text.split(":")
        return cls(account_id, key, secret)


@dataclass(frozen=True)
class Target:
    """A server, and two of its accounts."""

    url: str
    main: Keys
    alt: Keys


@contextmanager
def own_server() -> Iterator[Target]:
    """`moorage serve` on a free port with a second account."""
    with tempfile.TemporaryDirectory(prefix="s3-tests-") as directory:
        server = MoorageServer(Path(directory) / "data", allow_unsigned_payload=True).start()
        try:
            main = Keys(ACCOUNT, server.key.access_key_id, server.key.secret_access_key)
            yield Target(server.url, main, _second_account(server))
        finally:
            server.ensure_stopped()


def _second_account(server: MoorageServer) -> Keys:
    done = subprocess.run(
        [sys.executable, "-m", "moorage", "iam", "account", "create", "alt", "--json"],
        env={
            **os.environ,
            "AWS_ENDPOINT_URL": server.url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": server.key.access_key_id,
            "AWS_SECRET_ACCESS_KEY": server.key.secret_access_key,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    made = json.loads(done.stdout)
    key = made["AccessKey"]
    return Keys(made["Account"]["Id"], key["AccessKeyId"], key["SecretAccessKey"])


def configuration(target: Target) -> configparser.RawConfigParser:
    """What s3-tests want to be told; sections that no selected test uses are filled too, since they must be there."""
    address = urlsplit(target.url)
    parser = configparser.RawConfigParser()
    parser["DEFAULT"] = {
        "host": str(address.hostname),
        "port": str(address.port),
        "is_secure": str(address.scheme == "https"),
        "ssl_verify": "False",
    }
    parser["fixtures"] = {
        "bucket prefix": "s3-tests-{random}-",
        "iam name prefix": "s3-tests-",
        "iam path prefix": "/s3-tests/",
    }
    for section, keys in (
        ("s3 main", target.main),
        ("s3 alt", target.alt),
        ("s3 tenant", target.alt),
        ("iam", target.main),
        ("iam root", target.main),
        ("iam alt root", target.alt),
    ):
        parser[section] = {
            "display_name": keys.account_id,
            "user_id": keys.account_id,
            "email": "someone@example.com",
            "access_key": keys.access_key_id,
            "secret_key": keys.secret_access_key,
        }
    parser["s3 main"]["api_name"] = ""
    parser["s3 tenant"]["tenant"] = ""
    return parser


def install() -> Path:
    """The interpreter of the environment, which is made once."""
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (ENVIRONMENT / "complete").touch()
    return python


def run(checkout: Path, target: Target, arguments: Sequence[str]) -> list[dict[str, str]]:
    """What `s3_selection` reports of each test."""
    python = install()
    with tempfile.TemporaryDirectory(prefix="s3-tests-") as directory:
        settings, report = Path(directory) / "s3tests.conf", Path(directory) / "report"
        report.touch()
        with settings.open("w") as file:
            configuration(target).write(file)
        command = [str(python), "-m", "pytest", "-p", "s3_selection", "--timeout", str(_TEST_SECONDS)]
        subprocess.run(
            [*command, "--tb=short", "-q", *FILES, *arguments],
            cwd=checkout,
            env={
                **os.environ,
                "S3TEST_CONF": str(settings),
                "PYTHONPATH": str(HERE),
                s3_selection.REPORT_VARIABLE: str(report),
            },
            stdout=sys.stderr,
        )
        return [json.loads(line) for line in report.read_text().splitlines()]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--url")
    parser.add_argument("--main", type=Keys.parse)
    parser.add_argument("--alt", type=Keys.parse)
    parser.add_argument("--json", type=Path, help="where to write what came of each test")
    parser.add_argument("arguments", nargs="*", help="of pytest, after --")
    options = parser.parse_args()
    if not (options.checkout / FILES[0]).exists():
        print(
            f"{options.checkout} has no {FILES[0]}: clone https://github.com/ceph/s3-tests there.",
            file=sys.stderr,
        )
        return 2
    if options.url and not (options.main and options.alt):
        parser.error("--url needs --main and --alt")
    if options.url:
        outcomes = run(options.checkout, Target(options.url, options.main, options.alt), options.arguments)
    else:
        with own_server() as target:
            outcomes = run(options.checkout, target, options.arguments)
    if options.json:
        options.json.write_text(json.dumps(outcomes, indent=1) + "\n")
    return summarize(outcomes)


def summarize(outcomes: Sequence[dict[str, str]]) -> int:
    """Print what did not pass, and the numbers of each group; returns the exit status."""
    failed = [each for each in outcomes if each["outcome"] == "failed"]
    for each in failed:
        detail = each["detail"].splitlines() or [""]
        print(f"{each['group']}: {each['test']} ({each['when']}): {detail[0][:160]}")
    counts = Counter((each["group"], each["outcome"]) for each in outcomes if each["when"] == "call")
    for group in sorted({group for group, _ in counts}):
        numbers = [f"{counts[group, outcome]} {outcome}" for outcome in ("passed", "failed", "skipped")]
        print(f"{group}: {', '.join(numbers)}")
    return 1 if failed else 0 if outcomes else 2


if __name__ == "__main__":
    sys.exit(main())
