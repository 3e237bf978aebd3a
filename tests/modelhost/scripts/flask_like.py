"""A whole response with a status of its own."""

from sagemaker_containers.beta.framework import worker


def model_fn(model_dir):
    return None


def transform_fn(model, data, content_type, accept):
    if data == "teapot":
        return worker.Response(response="short and stout", status=418, mimetype="text/plain")
    return worker.Response(response=data.upper(), mimetype="text/csv")
