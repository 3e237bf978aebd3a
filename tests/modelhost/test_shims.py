"""Packages that scripts for AWS's images import, where the real ones are not installed."""

import importlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moorage.modelhost import handlers, responses

PACKAGES = (
    *("sagemaker_inference", "sagemaker_containers", "sagemaker_xgboost_container"),
    *("sagemaker_algorithm_toolkit", "sagemaker_huggingface_inference_toolkit", "mms"),
)
NAMES = {
    "sagemaker_inference.content_types": "JSON CSV OCTET_STREAM ANY NPY NPZ UTF8_TYPES",
    "sagemaker_inference.encoder": "encode SUPPORTED_CONTENT_TYPES _array_to_json _array_to_npy _array_to_csv",
    "sagemaker_inference.decoder": "decode _json_to_numpy _csv_to_numpy _npy_to_numpy _npz_to_sparse",
    "sagemaker_inference.errors": "UnsupportedFormatError BaseInferenceToolkitError GenericInferenceToolkitError",
    "sagemaker_inference.utils": "read_file write_file retrieve_content_type_header parse_accept remove_crlf",
    "sagemaker_inference.default_inference_handler": "DefaultInferenceHandler",
    "sagemaker_inference.transformer": "Transformer",
    "sagemaker_inference.default_handler_service": "DefaultHandlerService",
    "sagemaker_inference.model_server": "start_model_server",
    "sagemaker_inference.environment": "Environment model_dir code_dir",
    "sagemaker_inference.parameters": "USER_PROGRAM_ENV",
    "sagemaker_inference.logging": "get_logger configure_logger",
    "sagemaker_containers": "",
    "sagemaker_containers.entry_point": "run",
    "sagemaker_containers.beta.framework": (
        "content_types encoders entry_point env errors files functions logging mapping modules mpi params process "
        "runner server trainer transformer worker training_env"
    ),
    "sagemaker_containers.beta.framework.errors": "ClientError UnsupportedFormatError",
    "sagemaker_containers.beta.framework.encoders": (
        "encode decode array_to_npy npy_to_numpy array_to_json json_to_numpy csv_to_numpy array_to_csv "
        "array_to_recordio_protobuf"
    ),
    "sagemaker_containers.beta.framework.worker": "Response Worker Request default_healthcheck_fn",
    "sagemaker_containers.beta.framework.transformer": (
        "Transformer default_model_fn default_input_fn default_predict_fn default_output_fn"
    ),
    "sagemaker_containers.beta.framework.env": "ServingEnv",
    "sagemaker_containers.beta.framework.modules": "import_module",
    "sagemaker_containers.beta.framework.server": "start next_safe_port",
    "sagemaker_xgboost_container.encoder": (
        "csv_to_dmatrix libsvm_to_dmatrix recordio_protobuf_to_dmatrix decode json_to_jsonlines"
    ),
    "sagemaker_xgboost_container.data_utils": (
        "get_dmatrix get_content_type get_csv_dmatrix get_libsvm_dmatrix get_parquet_dmatrix "
        "get_recordio_protobuf_dmatrix get_size validate_data_file_path CSV LIBSVM PARQUET RECORDIO_PROTOBUF"
    ),
    "sagemaker_xgboost_container.distributed": "Rabit",
    "sagemaker_xgboost_container.checkpointing": "load_checkpoint",
    "sagemaker_xgboost_container.constants.xgb_content_types": "LIBSVM X_LIBSVM X_PARQUET X_RECORDIO_PROTOBUF",
    "sagemaker_algorithm_toolkit.exceptions": "BaseToolkitError AlgorithmError UserError PlatformError",
    "sagemaker_huggingface_inference_toolkit.decoder_encoder": (
        "decode encode decode_json decode_csv decode_image decode_audio encode_json encode_csv encode_image"
    ),
    "sagemaker_huggingface_inference_toolkit.content_types": "JPEG PNG FLAC",
    "mms.service": "PredictionException",
}


@pytest.fixture(autouse=True, scope="module")
def shims() -> Iterator[None]:
    path = str(handlers._SHIMS)
    sys.path.append(path)
    yield
    sys.path.remove(path)
    for name in list(sys.modules):
        if name.partition(".")[0] in PACKAGES:
            del sys.modules[name]


def of(module: str) -> Any:
    return importlib.import_module(module)


@pytest.mark.parametrize("module", NAMES)
def test_every_name_can_be_imported(module: str) -> None:
    found = of(module)
    for name in NAMES[module].split():
        assert getattr(found, name) is not None


def test_a_package_that_is_installed_goes_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mms").mkdir()
    (tmp_path / "mms" / "__init__.py").write_text("REAL = True")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("mms", "mms.service"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert of("mms").REAL
    sys.modules.pop("mms")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("sagemaker_containers.beta.framework.runner", "get"),
        ("sagemaker_containers.beta.framework.env", "TrainingEnv"),
        ("sagemaker_xgboost_container.distributed", "Rabit"),
        ("sagemaker_containers.entry_point", "run"),
    ],
)
def test_what_only_training_uses_says_so(module: str, name: str) -> None:
    with pytest.raises(
        RuntimeError, match=f"{module}.{name} is for training, and this container serves models"
    ):
        getattr(of(module), name)("anything")
    with pytest.raises(AttributeError):
        of(module).__nothing__  # noqa: B018


@pytest.mark.parametrize(
    ("array", "content_type", "expected"),
    [
        ([[1, 2], [3, 4]], "application/json", "[[1, 2], [3, 4]]"),
        (np.array([1.5, 2]), "application/json", "[1.5, 2.0]"),
        (np.array([1.5, 2]), "text/csv", "1.5\n2.0\n"),
        (np.array([[1, 2], [3, 4]]), "text/csv", "1,2\n3,4\n"),
    ],
)
def test_arrays_are_encoded(array: Any, content_type: str, expected: str) -> None:
    assert of("sagemaker_inference.encoder").encode(array, content_type) == expected
    assert of("sagemaker_containers.beta.framework.encoders").encode(array, content_type) == expected


def test_npy_goes_there_and_back() -> None:
    array = np.array([[1.5, 2]], dtype=np.float32)
    for module in ("sagemaker_inference", "sagemaker_containers.beta.framework"):
        encode = of(f"{module}.encoder{'s' if 'containers' in module else ''}").encode
        decode = of(f"{module}.{'encoders' if 'containers' in module else 'decoder'}").decode
        found = decode(encode(array, "application/x-npy"), "application/x-npy")
        assert (found.tolist(), found.dtype) == (array.tolist(), array.dtype)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2\n3,4\n", [[1.0, 2.0], [3.0, 4.0]]),
        ("1,2\n", [1.0, 2.0]),
        ("1\n2\n", [1.0, 2.0]),
        ("a,1\n", ["a", "1"]),
    ],
)
def test_csv_of_sagemaker_containers(text: str, expected: list[Any]) -> None:
    assert of("sagemaker_containers.beta.framework.encoders").csv_to_numpy(text).tolist() == expected


def test_texts_are_quoted_where_they_must_be() -> None:
    assert of("sagemaker_containers.beta.framework.encoders").array_to_csv(["a", 'b,"c']) == 'a\n"b,""c"\n'


@pytest.mark.parametrize("module", ["sagemaker_inference.decoder", "sagemaker_inference.encoder"])
def test_an_unknown_type_is_unsupported(module: str) -> None:
    call = getattr(of(module), module.rpartition(".")[2].removesuffix("r"))
    with pytest.raises(Exception, match="Content type text/x is not supported by this framework"):
        call("x", "text/x")


def test_the_handler_of_defaults() -> None:
    handler = of("sagemaker_inference.default_inference_handler").DefaultInferenceHandler()
    assert handler.default_input_fn("[1, 2]", "application/json").tolist() == [1, 2]
    assert handler.default_output_fn([1], "text/html, application/json") == ("[1]", "application/json")
    with pytest.raises(NotImplementedError):
        handler.default_model_fn("/opt/ml/model")


def test_errors() -> None:
    errors = of("sagemaker_inference.errors")
    error = errors.GenericInferenceToolkitError(418, "short and stout")
    assert (error.status_code, error.message, error.phrase, str(error)) == (
        *(418, "short and stout", "short and stout"),
        "short and stout",
    )
    assert errors.GenericInferenceToolkitError(400).message == "Invalid Request"
    assert str(of("mms.service").PredictionException("no", 404)) == "no : 404"
    assert isinstance(of("sagemaker_algorithm_toolkit.exceptions").UserError("no"), Exception)


def test_utils() -> None:
    utils = of("sagemaker_inference.utils")
    assert utils.retrieve_content_type_header({"ContentType": "a"}) == "a"
    assert utils.retrieve_content_type_header({"content-type": "b"}) == "b"
    assert utils.parse_accept("text/csv, application/json") == ["text/csv", "application/json"]
    assert utils.remove_crlf("a\r\nb") == "a  b"


def test_responses() -> None:
    response = of("sagemaker_containers.beta.framework.worker").Response(
        "a,b", mimetype="text/csv", status=201
    )
    assert (response.status_code, response.mimetype) == (201, "text/csv")
    found = responses.read(response)
    assert found is not None
    assert (found.status, found.body, found.content_type) == (201, b"a,b", "text/csv; charset=utf-8")
    assert of("sagemaker_containers.beta.framework.worker").Response().mimetype == "application/json"


@pytest.mark.parametrize("result", [None, "text", b"bytes", {"status_code": 200}, [1], 3])
def test_what_is_no_response(result: Any) -> None:
    assert responses.read(result) is None


def test_responses_of_other_libraries() -> None:
    starlette = pytest.importorskip("starlette.responses")
    found = responses.read(starlette.PlainTextResponse("x", status_code=404))
    assert found is not None
    assert (found.status, found.body) == (404, b"x")


def test_dmatrices() -> None:
    encoder = of("sagemaker_xgboost_container.encoder")
    assert encoder.csv_to_dmatrix("1,2\n3,4").num_col() == 2
    assert encoder.csv_to_dmatrix(b"1,2\n").num_row() == 1
    assert encoder.libsvm_to_dmatrix("0 0:1 3:2\n").num_col() == 4
    assert encoder.decode("1,2", "text/csv; label_size=1").num_col() == 2
    records = of("sagemaker_containers.beta.framework.encoders").array_to_recordio_protobuf(
        [[1, 2], [3, 4]], [0, 1]
    )
    assert encoder.recordio_protobuf_to_dmatrix(records).num_row() == 2
    with pytest.raises(Exception, match="not supported"):
        encoder.decode("x", "text/html")


def test_json_lines() -> None:
    to_lines = of("sagemaker_xgboost_container.encoder").json_to_jsonlines
    assert to_lines({"predictions": [{"a": 1}, {"a": 2}]}) == b'{"a": 1}\n{"a": 2}\n'
    assert to_lines('{"p": [1]}') == b"1\n"
    with pytest.raises(ValueError, match="exactly one"):
        to_lines({"a": [], "b": []})


def test_training_data(tmp_path: Path) -> None:
    data_utils = of("sagemaker_xgboost_container.data_utils")
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "a.csv").write_text("1,0.5,2\n0,3,4\n")
    (tmp_path / "csv" / ".hidden").write_text("no")
    (tmp_path / "b.libsvm").write_text("1 0:0.5 1:2\n0 1:4\n")
    for path, kind in ((tmp_path / "csv", "text/csv"), (tmp_path / "b.libsvm", "libsvm")):
        matrix = data_utils.get_dmatrix(str(path), kind)
        assert (matrix.num_row(), matrix.num_col(), matrix.get_label().tolist()) == (2, 2, [1.0, 0.0])
    weighted = data_utils.get_csv_dmatrix(str(tmp_path / "csv"), csv_weights=1)
    assert weighted.get_weight().tolist() == pytest.approx([0.5, 3])
    assert data_utils.get_content_type("text/csv; label_size=1") == "csv"
    assert data_utils.get_dmatrix(str(tmp_path / "nothing"), "csv") is None
    with pytest.raises(Exception, match="not an accepted ContentType"):
        data_utils.get_content_type("text/html")


def test_hugging_face() -> None:
    toolkit = of("sagemaker_huggingface_inference_toolkit.decoder_encoder")
    assert toolkit.decode('{"inputs": "x"}') == {"inputs": "x"}
    assert toolkit.encode([{"a": 1}]) == '[{"a":1}]'
    assert toolkit.encode([{"a": 1}], "text/csv") == "a\r\n1\r\n"


def test_a_transformer_of_ones_own() -> None:
    framework = of("sagemaker_containers.beta.framework.transformer")
    made = framework.Transformer(model_fn=lambda folder: 2, predict_fn=lambda data, model: data * model)
    made.initialize()
    response = made.transform("[1, 2]", "application/json", "application/json")
    assert response.get_data() == b"[2.0, 4.0]"


def test_sparse_arrays_are_read() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    stream = io.BytesIO()
    sparse.save_npz(stream, sparse.csr_matrix(np.eye(2)))
    found = of("sagemaker_inference.decoder").decode(stream.getvalue(), "application/x-npz")
    assert found.toarray().tolist() == [[1, 0], [0, 1]]


def test_next_safe_port() -> None:
    server = of("sagemaker_containers.beta.framework.server")
    assert (server.next_safe_port("9000-9001"), server.next_safe_port("9000-9001", 9000)) == ("9000", "9001")
    with pytest.raises(ValueError, match="outside of the acceptable port range"):
        server.next_safe_port("9000-9001", 9001)
