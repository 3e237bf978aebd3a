"""Models of each framework, and what their libraries predict by themselves: see `test_sdk_models`.

Usage: sdk_models.py DIRECTORY

Prints one JSON object: for each model, the predictions for the rows of the program. Runs where the frameworks are.
"""

import importlib
import json
import sys
from pathlib import Path

import joblib
import numpy
import torch
import transformers
import xgboost
from sklearn.linear_model import LogisticRegression

ROWS = numpy.array([[0.1, 0.2, 0.3, 0.4], [0.9, 0.8, 0.7, 0.6]])
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "boats", "sail", "sink"]

SKLEARN = """
import argparse
import os

import joblib


def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model-dir", default=os.environ.get("SM_MODEL_DIR"))
    print(parser.parse_args())
"""
TORCH = """
import os

import torch

from net import Net


def model_fn(model_dir):
    model = Net()
    with open(os.path.join(model_dir, "model.pth"), "rb") as file:
        model.load_state_dict(torch.load(file))
    return model
"""
NET = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 2)

    def forward(self, x):
        return torch.relu(self.linear(x))
"""
TORCH_SCRIPT = """
import os

import torch


def model_fn(model_dir):
    return torch.jit.load(os.path.join(model_dir, "model.pt"))
"""
XGBOOST = """
import os

import xgboost


def model_fn(model_dir):
    booster = xgboost.Booster()
    booster.load_model(os.path.join(model_dir, "model.json"))
    return booster
"""


def main(directory: str) -> None:
    here = Path(directory)
    chance = numpy.random.default_rng(3)
    x, y = chance.random((200, 4)), chance.integers(0, 2, 200)
    predicted = {}

    def folder(name: str, **code: str) -> Path:
        (here / name).mkdir()
        (here / f"{name}-code").mkdir()
        for module, text in code.items():
            (here / f"{name}-code" / f"{module}.py").write_text(text)
        return here / name

    estimator = LogisticRegression().fit(x, y)
    joblib.dump(estimator, folder("sklearn", inference=SKLEARN) / "model.joblib")
    predicted["sklearn"] = estimator.predict(ROWS).tolist()

    torch.manual_seed(1)
    eager = folder("torch-eager", inference=TORCH, net=NET)
    sys.path.append(str(here / "torch-eager-code"))
    net = importlib.import_module("net").Net()
    torch.save(net.state_dict(), eager / "model.pth")
    simple = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.Sigmoid())
    torch.jit.script(simple).save(str(folder("torch-script", inference=TORCH_SCRIPT) / "model.pt"))
    for name, module in (("torch-eager", net), ("torch-script", simple)):
        with torch.no_grad():
            predicted[name] = module(torch.tensor(ROWS, dtype=torch.float32)).tolist()

    booster = xgboost.train({"objective": "binary:logistic", "seed": 1}, xgboost.DMatrix(x, y), 5)
    booster.save_model(str(folder("xgboost", inference=XGBOOST) / "model.json"))
    predicted["xgboost"] = booster.predict(xgboost.DMatrix(ROWS)).tolist()

    model_dir = folder("huggingface")
    (model_dir / "vocab.txt").write_text("\n".join(WORDS))
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    torch.manual_seed(2)
    transformers.BertForSequenceClassification(config).save_pretrained(model_dir)
    tokenizer = transformers.BertTokenizer(str(model_dir / "vocab.txt"))
    tokenizer.save_pretrained(model_dir)
    pipe = transformers.pipeline("text-classification", model=str(model_dir), tokenizer=str(model_dir))
    predicted["huggingface"] = pipe("boats sail")
    print(json.dumps(predicted))


if __name__ == "__main__":
    main(*sys.argv[1:])
