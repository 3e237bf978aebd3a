"""The versions of frameworks that an image names."""

from importlib import metadata

import pytest

from moorage.modelhost import versions

from .hosts import Starter


@pytest.mark.parametrize(
    ("tag", "distributions", "expected"),
    [
        ("1.2-1-cpu-py3", ["scikit-learn"], {"scikit-learn": "1.2"}),
        ("1.7-1", ["xgboost"], {"xgboost": "1.7"}),
        ("1", ["xgboost"], {"xgboost": "1"}),
        ("2.3.0-cpu-py311-ubuntu20.04-sagemaker", ["torch"], {"torch": "2.3"}),
        (
            "2.6.0-transformers4.51.3-gpu-py312-cu124-ubuntu22.04",
            ["torch", "transformers"],
            {"torch": "2.6", "transformers": "4.51"},
        ),
        ("latest", ["torch"], {}),
        ("", ["torch"], {}),
    ],
)
def test_a_tag_names_versions(tag: str, distributions: list[str], expected: dict[str, str]) -> None:
    assert versions.named_by(tag, distributions) == expected


def test_only_what_differs_is_told() -> None:
    same = ".".join(metadata.version("scikit-learn").split(".")[:2])
    assert versions.differences({"scikit-learn": same}) == []
    assert versions.differences({"scikit-learn": same.split(".")[0]}) == []
    assert versions.differences({"not-installed": "1.0"}) == []
    (sentence,) = versions.differences({"scikit-learn": "0.23"})
    assert sentence.startswith("the image has scikit-learn 0.23, and ")


def test_pins_bring_a_numpy_that_fits() -> None:
    assert versions.requirements({"scikit-learn": "1.2"}) == ["scikit-learn==1.2.*", "numpy<2"]
    assert versions.requirements({"torch": "2.6", "transformers": "4.51"}) == [
        "torch==2.6.*",
        "transformers==4.51.*",
    ]


def test_a_host_says_that_another_version_runs(hosts: Starter) -> None:
    host = hosts.ready(
        """
        def model_fn(model_dir):
            return None
        def predict_fn(data, model):
            return data
        """,
        MOORAGE_MODEL_FAMILY="scikit-learn",
        MOORAGE_FRAMEWORK_VERSION="0.23-1",
        SAGEMAKER_MODEL_SERVER_WORKERS=2,
    )
    assert host.log.count("the image has scikit-learn 0.23, and ") == 1
