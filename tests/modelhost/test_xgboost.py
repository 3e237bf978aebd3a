"""The images for XGBoost. Predictions are compared with those of xgboost itself."""

import io
import json
import logging
import pickle
import subprocess
import sys
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moorage.modelhost import families, recordio
from moorage.modelhost.errors import InvocationError, StartupError
from moorage.modelhost.families.base import Family
from moorage.modelhost.settings import Settings

from .hosts import Starter

ROWS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3], [5.9, 3.0, 4.2, 1.5]]
CSV = "\n".join(",".join(map(str, row)) for row in ROWS)
LIBSVM = "\n".join("1 " + " ".join(f"{i}:{value}" for i, value in enumerate(row)) for row in ROWS)
DENSE = recordio.write(recordio.Record({"values": recordio.float32(row)}) for row in ROWS)


def trained(objective: str, *, seed: int = 0, features: int = 4) -> Any:
    rows = np.random.default_rng(seed).normal(loc=[5, 3, 4, 1][:features], size=(120, features))
    labels = np.digitize(rows[:, 0], [4.5, 5.5]) if objective.startswith("multi:") else rows[:, 0] > 5
    parameters = {"objective": objective, "nthread": 1, "max_depth": 2}
    if objective.startswith("multi:"):
        parameters["num_class"] = 3
    return xgboost.train(parameters, xgboost.DMatrix(rows, labels), 12)


def save(booster: Any, path: Path) -> None:
    path.write_bytes(booster.save_raw("ubj"))


def family(model_dir: Path, environ: Mapping[str, str] | None = None, *, has_code: bool = False) -> Family:
    settings = Settings.from_environment(
        {"SM_MODEL_DIR": str(model_dir), "MOORAGE_MODEL_FAMILY": "xgboost", **(environ or {})}
    )
    return families.create(settings, has_code=has_code)


class Served:
    """A family with its model, asked without a host."""

    def __init__(self, model_dir: Path, **environ: str) -> None:
        self.family = family(model_dir, environ)
        self.model = self.family.load(model_dir)
        self.family.check(self.model)

    def __call__(
        self, body: bytes | str, content_type: str | None = "text/csv", accept: str = ""
    ) -> tuple[str, str]:
        data = self.family.decode(body.encode() if isinstance(body, str) else body, content_type)
        prediction = self.family.predict(data, self.model)
        reply, media = self.family.encode(prediction, accept or self.family.accept)
        assert isinstance(reply, bytes)
        return reply.decode("latin-1"), media

    def refuses(self, *arguments: Any) -> tuple[int, str]:
        with pytest.raises(InvocationError) as raised:
            self(*arguments)
        return raised.value.status, raised.value.message


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    return path


@pytest.fixture
def booster(model_dir: Path) -> Any:
    """Of one model, which is in `model_dir` as AWS's training writes it."""
    model = trained("binary:logistic")
    save(model, model_dir / "xgboost-model")
    return model


def expected(booster: Any, rows: Any = ROWS) -> Any:
    return booster.predict(xgboost.DMatrix(np.array(rows, dtype=float)), validate_features=False)


def lines(values: Any) -> str:
    return "".join(f"{value}\n" for value in values.tolist())


# What is accepted.

ACCEPTED = [
    *((CSV, content_type) for content_type in ("text/csv", "csv", "Text/CSV", "text/csv; charset=utf-8")),
    (CSV, "text/csv;label_size=1"),
    *((LIBSVM, content_type) for content_type in ("text/libsvm", "text/x-libsvm", "libsvm", "LIBSVM", None)),
    (DENSE, "application/x-recordio-protobuf"),
    (DENSE, "recordio-protobuf"),
]


@pytest.mark.parametrize(("body", "content_type"), ACCEPTED, ids=[str(each[1]) for each in ACCEPTED])
def test_every_spelling_of_a_content_type(
    model_dir: Path, booster: Any, body: str, content_type: str | None
) -> None:
    assert Served(model_dir)(body, content_type) == (lines(expected(booster)), "text/csv")


@pytest.mark.parametrize("delimiter", [",", "\t", ";", " ", "|", ", "])
def test_the_delimiter_is_found(model_dir: Path, booster: Any, delimiter: str) -> None:
    body = CSV.replace(",", delimiter)
    assert Served(model_dir)(body + "\r\n\n")[0] == lines(expected(booster)), "blank ends do not count"


def test_an_empty_field_is_a_missing_value(model_dir: Path, booster: Any) -> None:
    nan = float("nan")
    wanted = lines(expected(booster, [[nan, 3.5, nan, nan], [6.7, 3, 5.2, nan]]))
    assert Served(model_dir)(",3.5,,\r\n6.7,3,5.2,\r\n")[0] == wanted


def test_one_column(model_dir: Path) -> None:
    model = trained("reg:squarederror", features=1)
    save(model, model_dir / "xgboost-model")
    assert Served(model_dir)("5.5\n-4.5")[0] == lines(expected(model, [[5.5], [-4.5]]))


def test_libsvm_counts_from_one_where_no_feature_is_zero(model_dir: Path, booster: Any) -> None:
    from_one = "\n".join(" ".join(f"{i}:{value}" for i, value in enumerate(row, 1)) for row in ROWS)
    assert Served(model_dir)(from_one, "libsvm")[0] == lines(expected(booster))
    nan = float("nan")
    as_sent = lines(expected(booster, [[nan, *ROWS[0][:3]]]))
    first = " ".join(f"{i}:{value}" for i, value in enumerate(ROWS[0][:3], 1))
    shifted = lines(expected(booster, [[*ROWS[0][:3], nan]]))
    for version, wanted in {
        "3.2-1": shifted,
        "4": shifted,
        "latest": shifted,
        "1.7-1": as_sent,
        "1": as_sent,
    }.items():
        assert Served(model_dir, MOORAGE_FRAMEWORK_VERSION=version)(first, "libsvm")[0] == wanted, version


def test_what_libsvm_leaves_out_is_missing_and_no_row_is_lost(model_dir: Path, booster: Any) -> None:
    nan = float("nan")
    wanted = lines(expected(booster, [[5.1, nan, nan, 0.2], [nan] * 4, [nan] * 4]))
    assert Served(model_dir)("1 0:5.1 3:0.2\n0\n1", "libsvm")[0] == wanted


@pytest.mark.parametrize("code", ["f", "d", "i"])
def test_sparse_and_dense_records(model_dir: Path, booster: Any, code: str) -> None:
    nan = float("nan")
    tensors = [
        recordio.Tensor(array(code, [5, 1]), keys=(0, 3), shape=(4,)),
        recordio.Tensor(array(code), shape=(4,)),
        recordio.Tensor(array(code, [6, 3, 5, 2])),
    ]
    body = recordio.write(recordio.Record({"values": each}) for each in tensors)
    wanted = expected(booster, [[5, nan, nan, 1], [nan] * 4, [6, 3, 5, 2]])
    assert Served(model_dir)(body, "recordio-protobuf")[0] == lines(wanted)
    dense = recordio.write(
        recordio.Record({"values": tensors[2]}, {"values": recordio.float32([1])}) for _ in "ab"
    )
    assert Served(model_dir)(dense, "recordio-protobuf")[0] == lines(expected(booster, [[6, 3, 5, 2]] * 2))


# What is refused.

NOT_RECORDIO = "byte 0 begins no RecordIO frame"
REFUSED = [
    ("", "text/csv", 204, ""),
    ("[[1, 2]]", "application/json", 415, "application/json is not an accepted ContentType: csv, libsvm, "),
    (b"PAR1", "application/x-parquet", 415, "application/x-parquet is not an accepted ContentType: "),
    (CSV, "text/csv; label_size=0", 415, "Optional parameter label_size must be equal to 1"),
    (f"a,b,c,d\n{CSV}", "text/csv", 415, "could not convert string to float: 'a'"),
    ('"1",2,3,4', "text/csv", 415, "could not convert string to float: '\"1\"'"),
    ("1,2,3,4\n1,2,3", "text/csv", 415, "row 2 has 3 columns, row 1 has 4"),
    ("1,inf,3,4", "text/csv", 415, "Input data contains `inf`"),
    (b"1,2,3,\xff", "text/csv", 415, "not UTF-8"),
    (" \n", "text/csv", 415, "blank"),
    ("1 qid:3 1:2", "libsvm", 415, "invalid literal for int() with base 10: 'qid'"),
    ("1 -1:3", "libsvm", 415, "negative"),
    ("1 0:x", "libsvm", 415, "could not convert string to float: 'x'"),
    (b"no frames", "recordio-protobuf", 415, NOT_RECORDIO),
    (recordio.write([recordio.Record()]), "recordio-protobuf", 415, "record 1 has no tensor named 'values'"),
    ("1,2,3,4,5", "text/csv", 400, "Unable to evaluate payload provided: "),
    ("0 0:1 4:1", "libsvm", 400, "Unable to evaluate payload provided: "),
]


@pytest.mark.parametrize(("body", "content_type", "status", "text"), REFUSED)
def test_refusals(
    model_dir: Path, booster: Any, body: Any, content_type: str, status: int, text: str
) -> None:
    got = Served(model_dir).refuses(body, content_type)
    assert got[0] == status
    assert text in got[1]


def test_a_body_that_is_no_csv_is_told_in_the_words_of_aws(model_dir: Path, booster: Any) -> None:
    assert Served(model_dir).refuses("a,b") == (
        415,
        "Loading csv data failed with Exception, please ensure data is in csv format:\n <class 'ValueError'>\n "
        "could not convert string to float: 'a'",
    )


NUMBERS = st.floats(allow_nan=False) | st.integers(-3, 2**70)
FEATURES = st.tuples(NUMBERS, NUMBERS).map(lambda pair: f"{pair[0]}:{pair[1]}")
TENSORS = st.builds(
    recordio.float32,
    st.lists(st.floats(width=32), max_size=5),
    keys=st.lists(st.integers(0, 2**64 - 1), max_size=5),
    shape=st.lists(st.integers(0, 2**64 - 1), max_size=2),
)
BODIES = st.one_of(
    st.tuples(st.sampled_from(["csv", "libsvm", "recordio-protobuf"]), st.binary(min_size=1)),
    st.tuples(
        st.just("csv"), st.lists(NUMBERS, min_size=1).map(lambda row: ",".join(map(str, row)).encode())
    ),
    st.tuples(st.just("libsvm"), st.lists(FEATURES, min_size=1).map(lambda row: " ".join(row).encode())),
    st.tuples(
        st.just("recordio-protobuf"),
        st.lists(TENSORS, min_size=1, max_size=3).map(
            lambda tensors: recordio.write(recordio.Record({"values": each}) for each in tensors)
        ),
    ),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(BODIES)
def test_any_body_is_answered_or_refused(model_dir: Path, booster: Any, asked: tuple[str, bytes]) -> None:
    served = Served(model_dir)
    content_type, body = asked
    try:
        assert served(body, content_type)[0].endswith("\n")
    except InvocationError as error:
        assert error.status in (400, 415)


@pytest.mark.parametrize(
    ("content_type", "columns", "refused"),
    [
        ("csv", 2, "Feature size of csv inference data 2 is not consistent with feature size of trained model 4."),
        ("csv", 3, ""),
        ("csv", 4, ""),
        ("libsvm", 1, ""),
        ("libsvm", 6, "Feature size of libsvm inference data 6 is larger than feature size of trained model 4."),
        ("recordio-protobuf", 2, "Feature size of recordio-protobuf inference data 2 is not consistent"),
    ],
)  # fmt: skip
def test_columns_are_counted_for_pickles(
    model_dir: Path, content_type: str, columns: int, refused: str
) -> None:
    (model_dir / "xgboost-model").write_bytes(pickle.dumps(trained("reg:squarederror")))
    body = {
        "csv": ",".join("1" * columns).encode(),
        "libsvm": b"0:1 %d:1" % (columns - 1),
        "recordio-protobuf": recordio.write([recordio.Record({"values": recordio.float32([1] * columns)})]),
    }[content_type]
    served = Served(model_dir)
    if refused:
        status, text = served.refuses(body, content_type)
        assert status == 400
        assert text.startswith(f"Unable to evaluate payload provided: {refused}")
    else:
        assert served(body, content_type)[0]


def test_columns_are_not_counted_for_saved_models(model_dir: Path, booster: Any) -> None:
    nan = float("nan")
    assert Served(model_dir)("5.1,3.5")[0] == lines(expected(booster, [[5.1, 3.5, nan, nan]]))


def test_an_accept_that_is_not_supported(model_dir: Path, booster: Any) -> None:
    assert Served(model_dir).refuses(CSV, "csv", "application/x-npy") == (
        406,
        "Accept type application/x-npy is not supported. Please use supported accept types: "
        "['application/json', 'application/jsonlines', 'application/x-recordio-protobuf', 'text/csv'].",
    )
    status, _ = Served(model_dir).refuses("1,2,3,4,5", "csv", "image/png")
    assert status == 400, "the prediction comes first"


# Replies.


def test_replies(model_dir: Path, booster: Any) -> None:
    served = Served(model_dir)
    values = expected(booster).tolist()
    rows = [{"score": value} for value in values]
    assert served(CSV, "csv", "text/csv; q=0.9") == (lines(expected(booster)), "text/csv")
    assert served(CSV, "csv", "Application/JSON") == (json.dumps({"predictions": rows}), "application/json")
    text, media = served(CSV, "csv", "application/jsonlines")
    assert (text, media) == ("".join(f"{json.dumps(row)}\n" for row in rows), "application/jsonlines")
    text, _ = served(CSV, "csv", "application/x-recordio-protobuf")
    assert [record.label["score"] for record in recordio.read(text.encode("latin-1"))] == [
        recordio.float32([value]) for value in values
    ]


def test_an_accept_with_several_types_gets_the_first_that_there_is(model_dir: Path, booster: Any) -> None:
    assert Served(model_dir)(CSV, "csv", "image/png, application/json, text/csv")[1] == "application/json"
    assert Served(model_dir)(CSV, "csv", "image/png, */*;q=0.1")[1] == "text/csv"


def test_probabilities_of_several_classes(model_dir: Path) -> None:
    model = trained("multi:softprob")
    save(model, model_dir / "xgboost-model")
    rows = expected(model).tolist()
    served = Served(model_dir)
    assert served(CSV)[0] == "".join(f"{','.join(map(str, row))}\n" for row in rows)
    assert json.loads(served(CSV, "csv", "application/json")[0]) == {
        "predictions": [{"score": row} for row in rows]
    }
    assert Served(model_dir, SAGEMAKER_BATCH="true")(CSV)[0] == "".join(f"{row}\n" for row in rows)


def test_batch_transform_gets_lines_whatever_it_accepts(model_dir: Path, booster: Any) -> None:
    served = Served(model_dir, SAGEMAKER_BATCH="true")
    assert served(CSV, "csv", "application/json") == (lines(expected(booster)), "application/json")


def test_the_default_accept(model_dir: Path, booster: Any) -> None:
    served = Served(model_dir, SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT="application/json")
    assert served(CSV)[1] == "application/json"
    with pytest.raises(StartupError, match="SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT is image/png: set it to"):
        Served(model_dir, SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT="image/png")


# Selectable inference.


def classes(
    label: Any, scores: list[float], best: float, *, count: int = 2, probable: bool
) -> dict[str, Any]:
    wanted: dict[str, Any] = {
        "predicted_label": label,
        "labels": list(range(count)),
        "raw_score": best,
        "raw_scores": scores,
    }
    return wanted | ({"probability": best, "probabilities": scores} if probable else {})


def wanted_of(objective: str, value: Any) -> dict[str, Any]:
    """For one record, written out by objective."""
    pair = value if isinstance(value, list) else [1.0 - value, value]
    match objective:
        case "binary:logistic":
            return classes(int(value > 0.5), pair, value, probable=True)
        case "binary:logitraw":
            return classes(int(value > 0), pair, value, probable=False)
        case "binary:hinge":
            return classes(value, pair, value, probable=False)
        case "multi:softmax":
            return classes(value, pair, value, count=3, probable=False)
        case "multi:softprob":
            return classes(int(np.argmax(value)), value, max(value), count=3, probable=True)
    return {"predicted_score": value}


@pytest.mark.parametrize(
    "objective",
    [
        *(f"reg:{name}" for name in ("squarederror", "logistic", "gamma", "absoluteerror", "tweedie")),
        *(f"binary:{name}" for name in ("logistic", "logitraw", "hinge")),
        *(f"multi:{name}" for name in ("softmax", "softprob")),
    ],
)
def test_the_keys_of_an_objective(model_dir: Path, objective: str) -> None:
    model = trained(objective) if objective != "reg:gamma" else positive()
    save(model, model_dir / "xgboost-model")
    wanted = [wanted_of(objective, value) for value in expected(model).tolist()]
    served = Served(model_dir, SAGEMAKER_INFERENCE_OUTPUT=", ".join(wanted[0]).title())
    assert json.loads(served(CSV, "csv", "application/json")[0]) == {"predictions": wanted}


def positive() -> Any:
    rows = np.random.default_rng(0).normal(size=(60, 4))
    parameters = {"objective": "reg:gamma", "nthread": 1}
    return xgboost.train(parameters, xgboost.DMatrix(rows, np.abs(rows[:, 0]) + 1), 3)


def test_selected_keys_in_every_format(model_dir: Path, booster: Any) -> None:
    keys = "predicted_label,probabilities"
    served = Served(model_dir, SAGEMAKER_INFERENCE_OUTPUT=keys)
    wanted = [
        {"predicted_label": int(value > 0.5), "probabilities": [1.0 - value, value]}
        for value in expected(booster).tolist()
    ]
    csv = "\n".join(f'{row["predicted_label"]},"{row["probabilities"]}"' for row in wanted)
    assert served(CSV) == (csv, "text/csv")
    assert served(CSV, "csv", "application/jsonlines")[0] == "".join(f"{json.dumps(row)}\n" for row in wanted)
    text, media = served(CSV, "csv", "application/x-recordio-protobuf")
    assert media == "application/x-recordio-protobuf"
    assert [dict(record.label) for record in recordio.read(text.encode("latin-1"))] == [
        {
            "predicted_label": recordio.float32([row["predicted_label"]]),
            "probabilities": recordio.float32(row["probabilities"]),
        }
        for row in wanted
    ]
    batch = Served(model_dir, SAGEMAKER_INFERENCE_OUTPUT=keys, SAGEMAKER_BATCH="true")
    assert batch(CSV)[0] == csv + "\n"


def test_a_key_that_the_objective_lacks_is_nan(
    model_dir: Path, booster: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        served = Served(model_dir, SAGEMAKER_INFERENCE_OUTPUT="predicted_label,mood")
    assert "mood: binary:logistic has no such value, so it is NaN" in caplog.text
    assert served("5.1,3.5,1.4,0.2")[0].endswith(",nan")
    assert '"mood": NaN' in served(CSV, "csv", "application/json")[0]


def test_an_objective_without_selectable_inference(model_dir: Path) -> None:
    save(trained("count:poisson"), model_dir / "xgboost-model")
    assert Served(model_dir, SAGEMAKER_INFERENCE_OUTPUT="predicted_score").refuses(CSV) == (
        500,
        "Objective `count:poisson` unsupported for selectable inference predictions.",
    )


# Models.


def test_several_models_are_averaged(model_dir: Path) -> None:
    models = [trained("binary:logistic", seed=seed) for seed in range(3)]
    for number, model in enumerate(models):
        save(model, model_dir / f"xgboost-model-{number}")
    average = np.mean([expected(model) for model in models], axis=0)
    assert Served(model_dir)(CSV)[0] == lines(average)
    for text in ("false", "0"):
        alone = Served(model_dir, SAGEMAKER_INFERENCE_ENSEMBLE=text)
        assert alone(CSV)[0] == lines(expected(models[0])), "the first by name"


@pytest.mark.parametrize("objective", ["multi:softmax", "binary:hinge"])
def test_several_models_vote_on_every_row(model_dir: Path, objective: str) -> None:
    models = [trained(objective, seed=seed) for seed in range(3)]
    for number, model in enumerate(models):
        save(model, model_dir / f"xgboost-model-{number}")
    rows = np.random.default_rng(7).normal(loc=[5, 3, 4, 1], size=(200, 4))
    votes = np.stack([expected(model, rows) for model in models])
    wanted = [max(sorted(set(column)), key=list(column).count) for column in votes.T.tolist()]
    assert len(set(wanted)) > 1
    body = "\n".join(",".join(map(repr, row)) for row in rows.tolist())
    assert Served(model_dir)(body)[0] == "".join(f"{each}\n" for each in wanted)


@pytest.mark.parametrize("name", ["xgboost-model", "model.json", "model.ubj", "model.txt", "anything.bin"])
def test_a_model_of_any_name(model_dir: Path, tmp_path: Path, name: str) -> None:
    model = trained("reg:squarederror")
    saved = tmp_path / ("saved.json" if name.endswith(".json") else "saved.ubj")
    model.save_model(saved)
    saved.rename(model_dir / name)
    assert Served(model_dir)(CSV)[0] == lines(expected(model))


def test_a_pickle_of_the_classes_for_scikit_learn(model_dir: Path) -> None:
    model = xgboost.XGBRegressor(n_estimators=3, n_jobs=1).fit(np.array(ROWS), [1, 2, 3])
    (model_dir / "xgboost-model").write_bytes(pickle.dumps(model))
    assert Served(model_dir)(CSV)[0] == lines(expected(model.get_booster()))


def test_files_that_are_evidently_no_models_are_passed_over(
    model_dir: Path, booster: Any, caplog: pytest.LogCaptureFixture
) -> None:
    others = ("README", "README.md", "requirements.txt", "metrics.json", "inference.py", ".DS_Store")
    for name in others:
        (model_dir / name).write_text('{"accuracy": 0.9}')
    (model_dir / "code").mkdir()
    (model_dir / "code" / "requirements.txt").write_text("")
    with caplog.at_level(logging.WARNING):
        assert Served(model_dir)(CSV)[0] == lines(expected(booster))
    for name in others:
        assert f"{name} is passed over" in caplog.text


def test_a_file_that_cannot_be_loaded_is_named(model_dir: Path, booster: Any) -> None:
    (model_dir / "zzz").write_bytes(b"no model")
    with pytest.raises(
        StartupError, match=r"Model zzz cannot be loaded: Pickle load error=.+, XGB load model error=.+"
    ):
        Served(model_dir)
    (model_dir / "zzz").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(StartupError, match="zzz is a pickled dict, not a Booster"):
        Served(model_dir)


def test_no_model(model_dir: Path) -> None:
    with pytest.raises(StartupError, match=r"There is no model at the root of .*\(no file\)"):
        Served(model_dir)
    (model_dir / "README.md").write_text("a model")
    with pytest.raises(StartupError, match=r"\(only README.md\)"):
        Served(model_dir)


# Through a host.


def host_of(hosts: Starter, inference: str | None = None, **environ: Any) -> Any:
    return hosts.ready(inference, MOORAGE_MODEL_FAMILY="xgboost", **environ)


def test_the_example(hosts: Starter) -> None:
    base = hosts.base()
    example = Path(__file__).parents[2] / "examples" / "xgboost" / "train.py"
    subprocess.run([sys.executable, example, base / "model"], check=True)
    host = host_of(hosts)
    reply = host.request("POST", "/invocations", "0:0 1:0.1\n0:0.9 1:-0.9")
    assert reply.status == 200, "no Content-Type is libsvm"
    assert reply.headers["content-type"] == "text/csv"
    inside, outside = map(float, reply.text.splitlines())
    assert outside < 0.1 < 0.9 < inside
    asked = host.invoke("0,0.1\n0.9,-0.9", "text/csv", Accept="application/json")
    assert json.loads(asked.body) == {"predictions": [{"score": inside}, {"score": outside}]}
    empty = host.invoke("", "text/csv")
    assert (empty.status, empty.body) == (204, b"")
    assert host.invoke("[[0, 0.1]]").status == 415
    assert host.invoke("1,2,3", "text/csv").status == 400
    assert host.invoke("0,0", "text/csv", Accept="image/png").status == 406
    assert host.request("GET", "/execution-parameters").status == 404


def test_a_body_larger_than_max_content_length(hosts: Starter) -> None:
    save(trained("binary:logistic"), hosts.base() / "model" / "xgboost-model")
    host = host_of(hosts, MAX_CONTENT_LENGTH=100)
    assert host.invoke("1,2,3,4", "csv").status == 200
    assert host.invoke("1,2,3,4\n" * 100, "csv").status == 413


def test_a_broken_model_fails_the_start(hosts: Starter) -> None:
    (hosts.base() / "model" / "xgboost-model").write_bytes(b"no model")
    host = hosts.start(MOORAGE_MODEL_FAMILY="xgboost")
    assert host.wait_failed().startswith("Model xgboost-model cannot be loaded: Pickle load error=")


# With code.


def test_a_script_with_defaults(hosts: Starter) -> None:
    model = trained("binary:logistic")
    save(model, hosts.base() / "model" / "model.ubj")
    host = host_of(
        hosts,
        """
        import os, xgboost
        def model_fn(model_dir):
            booster = xgboost.Booster()
            booster.load_model(os.path.join(model_dir, "model.ubj"))
            return booster
        """,
    )
    wanted = expected(model)
    for body, content_type in (
        (CSV + "\n", "text/csv; label_size=1"),
        (LIBSVM, "text/libsvm"),
        (DENSE, "application/x-recordio-protobuf"),
    ):
        reply = host.invoke(body, content_type)
        assert json.loads(reply.body) == wanted.tolist()
        assert reply.headers["content-type"] == "application/json"
    assert host.invoke(CSV, "text/csv", Accept="text/csv").text == lines(wanted)
    array_reply = host.invoke(CSV, "text/csv", Accept="application/x-npy")
    assert np.load(io.BytesIO(array_reply.body)).tolist() == wanted.tolist()
    assert host.invoke(json.dumps(ROWS)).status == 415
    assert host.request("POST", "/invocations", json.dumps(ROWS)).status == 415, "no Content-Type is JSON"
    assert host.invoke("a,b", "text/csv").status == 400
    assert host.invoke(CSV, "text/csv", Accept="image/png").status == 406
    assert host.invoke("1,2,3,4,5", "text/csv").status == 500


def test_user_code_has_one_thread_unless_told_otherwise(hosts: Starter) -> None:
    script = """
        import os
        def transform_fn(model, body, content_type, accept):
            return os.environ["OMP_NUM_THREADS"], "text/plain"
        def model_fn(model_dir):
            return None
        """
    assert host_of(hosts, script).invoke("").text == "1"
    assert host_of(hosts, script, OMP_NUM_THREADS=3).invoke("").text == "3"


def test_a_script_without_model_fn(model_dir: Path, booster: Any) -> None:
    script = family(model_dir, has_code=True)
    model = script.load(model_dir)
    script.check(model)
    assert type(model) is xgboost.Booster
    assert script.predict(script.decode(CSV, "text/csv"), model).tolist() == expected(booster).tolist()
    other = trained("binary:logistic", seed=1)
    save(other, model_dir / "xgboost-model-1")
    both = script.load(model_dir)
    script.check(both)
    average = np.mean([expected(booster), expected(other)], axis=0)
    assert script.predict(script.decode(CSV, "text/csv"), both).tolist() == average.tolist()


def test_what_libsvm_leaves_out_is_missing_for_a_script_too(model_dir: Path, booster: Any) -> None:
    script = family(model_dir, has_code=True)
    prediction = script.predict(script.decode(b"1 1:5.1 4:0.2", "text/libsvm"), booster)
    assert prediction.tolist() == expected(booster, [[5.1, np.nan, np.nan, 0.2]]).tolist()


def test_a_script_with_a_model_of_scikit_learn(model_dir: Path) -> None:
    classifier = xgboost.XGBClassifier(n_estimators=3, n_jobs=1).fit(np.array(ROWS), [0, 1, 0])
    script = family(model_dir, has_code=True)
    script.check(classifier)
    prediction = script.predict(script.decode("5.1,,1.4,0", "text/csv"), classifier)
    assert prediction.tolist() == classifier.predict(np.array([[5.1, np.nan, 1.4, 0]])).tolist()
    assert script.predict(script.decode(b"0 0:5.1", "text/libsvm"), classifier).shape == (1,)
    with pytest.raises(InvocationError, match="The body has 1000000000001 columns, but the model takes 4"):
        script.predict(script.decode(b"0 0:1 1000000000000:1", "text/libsvm"), classifier)


def test_a_script_with_a_model_of_its_own_gets_a_dmatrix(model_dir: Path) -> None:
    script = family(model_dir, has_code=True)
    assert script.predict(script.decode(CSV, "text/csv"), lambda matrix: matrix.num_row()) == len(ROWS)


def test_settings() -> None:
    def read(**environ: str) -> Settings:
        return Settings.from_environment({"MOORAGE_MODEL_FAMILY": "xgboost", **environ})

    usual = read()
    assert (usual.inference_ensemble, usual.inference_output, usual.is_batch_transform) == (True, (), False)
    assert not read(SAGEMAKER_INFERENCE_ENSEMBLE="false").inference_ensemble
    assert read(SAGEMAKER_INFERENCE_ENSEMBLE="True").inference_ensemble
    assert read(SAGEMAKER_INFERENCE_OUTPUT=" Labels, RAW_SCORE,").inference_output == (
        "labels",
        "raw_score",
    )
    assert read(SAGEMAKER_BATCH="1").is_batch_transform
    assert read(MAX_CONTENT_LENGTH="7").max_request_bytes == 7
    with pytest.raises(StartupError, match="MAX_CONTENT_LENGTH is 'many': set it to"):
        read(MAX_CONTENT_LENGTH="many")
