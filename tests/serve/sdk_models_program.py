"""What users of the SageMaker Python SDK write to deploy models of each framework: see `test_sdk_models`.

Usage: sdk_models_program.py ROLE BUCKET DIRECTORY

The directory has the models that `sdk_models.py` made. Prints one JSON object: what each endpoint predicted.
"""

import json
import sys
import tarfile
from pathlib import Path

import numpy
import sagemaker
from sagemaker.deserializers import CSVDeserializer, JSONDeserializer
from sagemaker.huggingface import HuggingFaceModel
from sagemaker.pytorch import PyTorchModel
from sagemaker.serializers import CSVSerializer, JSONSerializer
from sagemaker.sklearn import SKLearnModel
from sagemaker.xgboost import XGBoostModel
from sagemaker.xgboost.model import XGBoostModel as _  # noqa: F401  the path that older scripts import

ROWS = numpy.array([[0.1, 0.2, 0.3, 0.4], [0.9, 0.8, 0.7, 0.6]])

LIBSVM = "\n".join("0 " + " ".join(f"{i}:{cell}" for i, cell in enumerate(row)) for row in ROWS)


def main(role: str, bucket: str, directory: str) -> None:
    session = sagemaker.Session(default_bucket=bucket)
    here = Path(directory)
    said = {}

    def data(name: str) -> str:
        archive = here / f"{name}.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            for path in sorted((here / name).iterdir()):
                tar.add(path, path.name)
        return session.upload_data(str(archive), key_prefix=f"models/{name}")

    def common(name: str, **members):
        return {"model_data": data(name), "role": role, "sagemaker_session": session, "name": name, **members}

    def scripts(name: str) -> dict:
        return {"entry_point": "inference.py", "source_dir": str(here / f"{name}-code")}

    models = {
        "sklearn": SKLearnModel(**common("sklearn"), **scripts("sklearn"), framework_version="1.2-1"),
        "torch-script": PyTorchModel(
            **common("torch-script"), **scripts("torch-script"), framework_version="2.3", py_version="py311"
        ),
        "torch-eager": PyTorchModel(
            **common("torch-eager"), **scripts("torch-eager"), framework_version="2.3", py_version="py311"
        ),
        "xgboost": XGBoostModel(**common("xgboost"), **scripts("xgboost"), framework_version="1.7-1"),
        "huggingface": HuggingFaceModel(
            **common("huggingface", env={"HF_TASK": "text-classification"}),
            transformers_version="4.37",
            pytorch_version="2.1",
            py_version="py310",
        ),
    }
    predictors = {
        name: model.deploy(1, "ml.m5.large", endpoint_name=name, wait=False) for name, model in models.items()
    }
    for name, predictor in predictors.items():
        session.wait_for_endpoint(name, poll=1)
        if name == "huggingface":
            said[name] = predictor.predict({"inputs": "boats sail"})
            continue
        # With the SDK's own serializer for the framework.
        rows = LIBSVM if name == "xgboost" else ROWS.astype("float32")
        said[name] = numpy.asarray(predictor.predict(rows)).tolist()
        predictor.serializer, predictor.deserializer = JSONSerializer(), JSONDeserializer()
        if name != "xgboost":
            said[f"{name}, JSON"] = predictor.predict(ROWS.tolist())
        predictor.serializer, predictor.deserializer = CSVSerializer(), CSVDeserializer()
        said[f"{name}, CSV"] = predictor.predict(ROWS)
    print()  # the SDK has left a line of its own unfinished
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
