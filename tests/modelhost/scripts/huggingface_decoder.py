"""The toolkit's decoder, and its error."""

from mms.service import PredictionException
from sagemaker_huggingface_inference_toolkit import decoder_encoder


def model_fn(model_dir):
    return "model"


def input_fn(input_data, content_type):
    document = decoder_encoder.decode(input_data, content_type)
    if "inputs" not in document:
        raise PredictionException("inputs is missing", 400)
    return document


def predict_fn(processed_data, model):
    return [{"label": text, "score": 1.0} for text in processed_data["inputs"]]


def output_fn(prediction, accept):
    return decoder_encoder.encode(prediction, accept)
