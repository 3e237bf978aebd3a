"""The versions of frameworks that an image's tag names, and those that run here."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

_PARTS: Final = 2
"""Major and minor: images of AWS are released again with other patches."""

_BUILT_FOR_NUMPY_1: Final = {"scikit-learn": (1, 4), "torch": (2, 3), "transformers": (4, 38)}
"""The first minor version of each that runs with NumPy 2."""


def named_by(tag: str, distributions: Sequence[str]) -> dict[str, str]:
    """Of a tag such as `1.2-1-cpu-py3` or `2.6.0-transformers4.51.3-cpu`: the versions as far as they are compared.
    The tag begins with that of the first distribution."""
    found = {}
    for number, distribution in enumerate(distributions):
        pattern = r"\d+(?:\.\d+)*" if number == 0 else rf"(?:^|-){re.escape(distribution)}(\d+(?:\.\d+)*)"
        match = re.match(pattern, tag) if number == 0 else re.search(pattern, tag)
        if match:
            version = match[match.lastindex or 0]
            found[distribution] = ".".join(version.split(".")[:_PARTS])
    return found


def differences(named: Mapping[str, str]) -> list[str]:
    """A sentence for each that is another here."""
    from importlib import metadata  # here, because it imports much that most workers never need

    if not named:
        return []
    sentences = []
    for distribution, version in named.items():
        try:
            installed = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
        if [*re.findall(r"\d+", installed)][: version.count(".") + 1] != version.split("."):
            sentences.append(
                f"the image has {distribution} {version}, and {installed} runs here: "
                f"name {distribution}=={version}.* in code/requirements.txt, or set framework_versions to pinned"
            )
    return sentences


def requirements(named: Mapping[str, str]) -> list[str]:
    """Lines that install these versions, and a NumPy that they were built for."""
    lines = [f"{distribution}=={version}.*" for distribution, version in named.items()]
    if any(_is_before(version, _BUILT_FOR_NUMPY_1.get(name)) for name, version in named.items()):
        lines.append("numpy<2")
    return lines


def _is_before(version: str, first: tuple[int, int] | None) -> bool:
    return first is not None and tuple(map(int, version.split("."))) < first
