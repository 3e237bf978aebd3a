"""Models that users of the SageMaker Python SDK deploy: an inference.py each, for the contract of its container."""

DOUBLING = """
import os

def model_fn(model_dir):
    with open(os.path.join(model_dir, "factor.txt")) as file:
        return float(file.read())

def predict_fn(data, model):
    if getattr(data, "size", 1) == 0:
        raise ValueError("there are no numbers")
    return data * model
"""
"""What the container decodes, doubled; it encodes the result. SKLearn, XGBoost and PyTorch have these hooks."""

FACTOR = "2"
"""The file factor.txt of its model.tar.gz."""

REVERSING = """
import json

def model_fn(model_dir):
    return None

def transform_fn(model, body, content_type, accept_type):
    if content_type == "application/octet-stream":
        return bytes(reversed(body)), content_type
    document = json.loads(body)
    if "raise" in document:
        raise ValueError(document["raise"])
    if "count" in document:
        return (f"{number}\\n" for number in range(document["count"])), "text/csv"
    return json.dumps({"text": document["text"][::-1]}), "application/json"
"""
"""JSON in and out, bytes in and out, and a stream of numbers. Hugging Face's containers have this hook."""

BROKEN = """
def model_fn(model_dir):
    raise RuntimeError("no weights in here")
"""
