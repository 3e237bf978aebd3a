"""Training data from files, with the label in the first column."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sagemaker_algorithm_toolkit import exceptions

CSV = "csv"
LIBSVM = "libsvm"
PARQUET = "parquet"
RECORDIO_PROTOBUF = "recordio-protobuf"

_BY_CONTENT_TYPE = {
    **dict.fromkeys(("csv", "text/csv"), CSV),
    **dict.fromkeys(("libsvm", "text/libsvm", "text/x-libsvm"), LIBSVM),
    **dict.fromkeys(("parquet", "application/x-parquet"), PARQUET),
    **dict.fromkeys(("recordio-protobuf", "application/x-recordio-protobuf"), RECORDIO_PROTOBUF),
}


def get_content_type(content_type_cfg_val: str | None) -> str:
    """The short name; libsvm if none is given."""
    name = (content_type_cfg_val or LIBSVM).partition(";")[0].strip().lower()
    if name not in _BY_CONTENT_TYPE:
        raise exceptions.UserError(
            f"{content_type_cfg_val} is not an accepted ContentType: {', '.join(_BY_CONTENT_TYPE)}"
        )
    return _BY_CONTENT_TYPE[name]


def get_dmatrix(data_path: Any, content_type: str, csv_weights: int = 0, is_pipe: bool = False) -> Any:
    """Of a file, of all files of a directory, or of a list of them. None if there is no file."""
    files = _files(data_path)
    if not files:
        return None
    readers = {
        CSV: lambda: get_csv_dmatrix(files, csv_weights, is_pipe),
        LIBSVM: lambda: get_libsvm_dmatrix(files, is_pipe),
        PARQUET: lambda: get_parquet_dmatrix(files, is_pipe),
        RECORDIO_PROTOBUF: lambda: get_recordio_protobuf_dmatrix(files, is_pipe),
    }
    matrix = readers[get_content_type(content_type)]()
    if matrix.get_label().size == 0:
        raise exceptions.UserError("Got input data without labels. Please check the input data set.")
    return matrix


def get_csv_dmatrix(path: Any, csv_weights: int = 0, is_pipe: bool = False) -> Any:
    """With `csv_weights` 1 the second column has the weights."""
    import numpy as np

    rows = [np.genfromtxt(file, delimiter=",", ndmin=2) for file in _files(path)]
    table = np.concatenate(rows)
    first = 2 if csv_weights else 1
    return _dmatrix(table[:, first:], label=table[:, 0], weight=table[:, 1] if csv_weights else None)


def get_libsvm_dmatrix(path: Any, is_pipe: bool = False) -> Any:
    from moorage.modelhost.families.xgboost import matrices

    text = "\n".join(Path(file).read_text().strip("\n") for file in _files(path))
    matrix = matrices.libsvm_matrix(text, one_based=False)
    matrix.set_label([float(line.split()[0]) for line in text.split("\n")])
    return matrix


def get_parquet_dmatrix(path: Any, is_pipe: bool = False) -> Any:
    import pandas

    table = pandas.concat([pandas.read_parquet(file) for file in _files(path)]).to_numpy()
    return _dmatrix(table[:, 1:], label=table[:, 0])


def get_recordio_protobuf_dmatrix(path: Any, is_pipe: bool = False) -> Any:
    from moorage.modelhost import recordio
    from moorage.modelhost.families.xgboost import matrices

    data = b"".join(Path(file).read_bytes() for file in _files(path))
    matrix = matrices.recordio_matrix(data)
    labels = [record.label.get("values") for record in recordio.read(data)]
    found = [each.values[0] for each in labels if isinstance(each, recordio.Tensor) and each.values]
    if len(found) == matrix.num_row():
        matrix.set_label(found)
    return matrix


def get_size(data_path: Any, is_pipe: bool = False) -> int:
    return sum(Path(file).stat().st_size for file in _files(data_path))


def validate_data_file_path(data_path: Any, content_type: str) -> None:
    if not _files(data_path):
        raise exceptions.UserError(f"{data_path} is not a valid path!")
    get_content_type(content_type)


def _files(path: Any) -> list[str]:
    """Without hidden ones, in the order of their names."""
    if isinstance(path, (list, tuple)):
        return [file for each in path for file in _files(each)]
    here = Path(path)
    if here.is_dir():
        found: Iterable[Path] = sorted(each for each in here.rglob("*") if each.is_file())
        return [str(each) for each in found if not each.name.startswith(".")]
    return [str(here)] if here.is_file() else []


def _dmatrix(data: Any, **members: Any) -> Any:
    import xgboost

    return xgboost.DMatrix(data, **members)
