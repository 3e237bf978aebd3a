#!/usr/bin/env python3
"""Writes THIRD_PARTY.md: whose work is in a wheel of Moorage, and on whose it depends, with their licences.

    .venv/bin/python s3/third_party.py          after a change of go.mod or requirements/core.txt

The Go modules are those that the program itself names; their licences come from Go's module cache. Packages of Python
are installed beside Moorage, not within it, so their names will do.
"""

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

import build

_ROOT = build.SOURCES.parent
_PARTS_OF_THE_BUILD = {"hatchling", "editables", "pathspec", "pluggy", "trove-classifiers", "packaging"}
_GO = ("the Go standard library", "that of the compiler")
_LICENCE_FILE = re.compile(r"(LICEN[CS]E|COPYING|NOTICE)([.-].*)?", re.IGNORECASE)
_SIGNS = (
    ("MPL-2.0", r"Mozilla Public License,? [Vv](ersion|\.) 2\.0"),
    ("Apache-2.0", r"Apache License\s+Version 2\.0"),
    ("BSD-3-Clause", r"Redistribution and use(.|\n)*(Neither the|names? of)(.|\n)*endorse"),
    ("BSD-2-Clause", r"Redistribution and use"),
    ("MIT", r"Permission is hereby granted, free of charge"),
    ("ISC", r"Permission to use, copy, modify, and/or distribute"),
)
"""What is found in a licence's text, the more particular first."""


def modules_in(program: bytes) -> list[tuple[str, str]]:
    """The Go modules that were linked into a program, and their versions."""
    found = re.findall(rb"\ndep\t([^\t\n]+)\t([^\t\n]+)", program)
    return sorted({(module.decode(), version.decode()) for module, version in found})


def packages_in(lock: str) -> list[tuple[str, str]]:
    """The packages of a locked requirements file that Moorage needs when it runs, and their versions."""
    found = re.findall(r"^([\w.-]+)(?:\[[^]]*\])?==([^ ;\\]+)(.*)", lock, re.MULTILINE)
    return sorted(
        (name, version)
        for name, version, condition in found
        if name not in _PARTS_OF_THE_BUILD and "win32" not in condition
    )


def licence_of(texts: Iterable[str]) -> str:
    """The SPDX identifier of the licence in these texts. Raises `ValueError` for one that is not known."""
    for text in texts:
        for name, sign in _SIGNS:
            if re.search(sign, text):
                return name
    raise ValueError(f"a licence that is not known: {list(texts)}")


def document(modules: Mapping[tuple[str, str], list[str]], packages: Mapping[tuple[str, str], str]) -> str:
    """The whole file, of the licence texts of each module and the licence's name of each package."""
    lines = [
        "# Third parties",
        "",
        "Written by `s3/third_party.py`. The program of the embedded S3, `moorage-s3`, which is in wheels, is linked",
        "from these modules. The source of each is at `https://<module>`, under the tag that is its version.",
        "",
        "| module | version | licence |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {version} | {licence_of(texts)} |" for (name, version), texts in modules.items()]
    lines += [
        "",
        "These packages are installed beside Moorage, and are not in its wheel.",
        "",
        "| package | version | licence |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {version} | {licence} |" for (name, version), licence in packages.items()]
    lines += ["", "## Licences and notices of the modules"]
    users: dict[str, list[str]] = defaultdict(list)
    for (name, _), texts in modules.items():
        for text in texts:
            users[text].append(name)
    for text, names in users.items():
        lines += ["", f"### {', '.join(names)}", "", "```", *text.splitlines(), "```"]
    return "\n".join(lines) + "\n"


def _texts_of(module: str, version: str) -> list[str]:
    if module == _GO[0]:
        directory = Path(_go("env", "GOROOT").strip())
    else:
        directory = Path(json.loads(_go("list", "-m", "-json", f"{module}@{version}"))["Dir"])
    files = [
        path for path in sorted(directory.iterdir()) if _LICENCE_FILE.fullmatch(path.name) and path.is_file()
    ]
    texts = ["\n".join(line.rstrip() for line in path.read_text().strip().splitlines()) for path in files]
    if not texts:
        sys.exit(f"{module} {version} has no licence file in {directory}")
    return sorted(texts, key=lambda text: not re.search("licen[cs]e", text, re.IGNORECASE))


def _licence_of_package(name: str) -> str:
    about = metadata.metadata(name)
    classifiers = [
        each.rpartition(" :: ")[2] for each in about.get_all("Classifier", []) if "License ::" in each
    ]
    said = about.get("License-Expression") or ", ".join(classifiers) or about.get("License") or "?"
    return said.splitlines()[0]


def _go(*arguments: str) -> str:
    go = build.find_go()
    if go is None:
        sys.exit("The licences are read from Go's module cache: install Go.")
    done = subprocess.run([go, *arguments], cwd=build.SOURCES, capture_output=True, text=True, check=True)
    return done.stdout


def main() -> None:
    program = build.build().read_bytes()
    modules = {each: _texts_of(*each) for each in [*modules_in(program), _GO]}
    packages = {
        each: _licence_of_package(each[0])
        for each in packages_in((_ROOT / "requirements/core.txt").read_text())
    }
    (_ROOT / "THIRD_PARTY.md").write_text(document(modules, packages))


if __name__ == "__main__":
    main()
