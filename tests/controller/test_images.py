"""The image catalogue."""

import sys
import tomllib

import pytest

from moorage.controller.images import ResolvedImage, UnknownImage, resolve

MODEL_HOST = (sys.executable, "-m", "moorage.modelhost", "serve")
DLC = "763104351884.dkr.ecr.us-west-2.amazonaws.com"


@pytest.mark.parametrize(
    ("image", "family", "version"),
    [
        (
            "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3",
            *("scikit-learn", "1.2-1-cpu-py3"),
        ),
        ("683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1", "xgboost", "1.7-1"),
        ("811284229777.dkr.ecr.us-east-1.amazonaws.com/xgboost:1", "xgboost", "1"),
        ("450853457545.dkr.ecr.cn-north-1.amazonaws.com.cn/sagemaker-xgboost:1.7-1", "xgboost", "1.7-1"),
        (
            "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com/sagemaker-scikit-learn:1.2-1",
            *("scikit-learn", "1.2-1"),
        ),
        (f"{DLC}/pytorch-inference:2.3.0-cpu-py311", "pytorch", "2.3.0-cpu-py311"),
        (f"{DLC}/pytorch-training:2.3.0-cpu-py311", "pytorch", "2.3.0-cpu-py311"),
        (f"{DLC}/pytorch-inference-graviton:2.3.0", "pytorch", "2.3.0"),
        (
            f"{DLC}/huggingface-pytorch-inference:2.6.0-transformers4.51.3-gpu-py312",
            *("huggingface", "2.6.0-transformers4.51.3-gpu-py312"),
        ),
        (f"{DLC}/huggingface-pytorch-inference", "huggingface", ""),
        (f"{DLC}/huggingface-pytorch-inference@sha256:{'0' * 64}", "huggingface", ""),
        (f"{DLC}/huggingface-pytorch-inference:2.6.0@sha256:{'0' * 64}", "huggingface", "2.6.0"),
        ("public.ecr.aws/deep-learning-containers/pytorch-inference:2.6.0-cpu", "pytorch", "2.6.0-cpu"),
        ("081325390199.dkr.ecr.us-east-1.amazonaws.com/sagemaker-base-python:1.0", "generic", "1.0"),
        ("moorage/modelhost", "generic", ""),
        ("moorage/modelhost:1", "generic", ""),
    ],
)
def test_the_python_images_of_aws_are_the_built_in_host(image: str, family: str, version: str) -> None:
    assert resolve(image, {}) == ResolvedImage(argv=MODEL_HOST, family=family, version=version)


@pytest.mark.parametrize(
    "image",
    [
        f"{DLC}/huggingface-pytorch-tgi-inference:2.4.0-tgi2.3.1-gpu-py311-cu124-ubuntu22.04",
        f"{DLC}/djl-inference:0.30.0-lmi12.0.0-cu124",
        f"{DLC}/vllm:0.11-gpu",
        f"{DLC}/sagemaker-tritonserver:24.09-py3",
        f"{DLC}/tensorflow-inference:2.16-cpu",
        f"{DLC}/pytorch-inference-eia:1.5.1",
        f"{DLC}/huggingface-pytorch-inference-neuronx:2.1",
        f"{DLC}/mine/pytorch-inference:1",
        "pytorch-inference:2.3.0",
        "docker.io/library/nginx",
        "12345.dkr.ecr.us-west-2.amazonaws.com/pytorch-inference:2",
        "763104351884.dkr.ecr.us-west-2.amazonaws.com.example.org/pytorch-inference:2",
        "",
    ],
)
def test_what_needs_a_program_of_its_own_is_not_guessed(image: str) -> None:
    with pytest.raises(UnknownImage, match=r"\[images\] table of moorage\.toml"):
        resolve(image, {})


def test_the_hint_is_a_line_that_works() -> None:
    image = "localhost:5000/team/llm:v3"
    with pytest.raises(UnknownImage) as caught:
        resolve(image, {})
    line = str(caught.value).rpartition("for example: ")[2]
    assert line == '"localhost:5000/team/llm*" = "{python} /path/to/serve.py"'
    images = {pattern: tuple(command.split()) for pattern, command in tomllib.loads(line).items()}
    assert resolve(image, images).argv == (sys.executable, "/path/to/serve.py")


def test_the_users_table_goes_before_the_catalogue() -> None:
    images = {"*/pytorch-inference:*": ("serve", "--it")}
    assert resolve(f"{DLC}/pytorch-inference:2", images) == ResolvedImage(
        argv=("serve", "--it"), pattern="*/pytorch-inference:*"
    )
    assert resolve("moorage/modelhost", {"moorage/*": ("x",)}).argv == ("x",)


def test_the_longest_pattern_wins_and_the_exact_name_before_all() -> None:
    images = {
        "*": ("a",),
        "team/*": ("b",),
        "team/llm:*": ("c",),
        "team/llm:v1": ("d",),
        "team/l[l-m]*:v1": ("e",),
    }
    chosen = {image: resolve(image, images).argv for image in ("x", "team/x", "team/llm:v2", "team/llm:v1")}
    assert chosen == {"x": ("a",), "team/x": ("b",), "team/llm:v2": ("c",), "team/llm:v1": ("d",)}


def test_the_placeholder_is_this_python_wherever_it_stands() -> None:
    argv = resolve("x", {"x": ("env", "PY={python}", "{python}", "{other}")}).argv
    assert argv == ("env", f"PY={sys.executable}", sys.executable, "{other}")
