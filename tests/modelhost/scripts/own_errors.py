"""A status of one's own for bad input."""

from sagemaker_inference.errors import BaseInferenceToolkitError, GenericInferenceToolkitError


def model_fn(model_dir):
    return None


def predict_fn(data, model):
    if isinstance(data, dict):
        raise GenericInferenceToolkitError(422, "a list is needed")
    if len(data) == 0:
        raise BaseInferenceToolkitError(status_code=404, message="nothing there", phrase="Not Found")
    return data
