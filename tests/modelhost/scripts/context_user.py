"""The context: headers in, headers and a status out, and metrics."""

import json


def model_fn(model_dir, context):
    return context.system_properties.get("gpu_id")


def input_fn(data, content_type, context):
    return json.loads(data)


def predict_fn(data, model, context):
    context.metrics.add_counter("invocations", 1)
    return {"got": data, "id": context.get_request_header(0, "X-Amzn-SageMaker-Custom-Attributes")}


def output_fn(prediction, accept, context):
    context.set_response_header(0, "X-Amzn-SageMaker-Custom-Attributes", prediction["id"])
    context.set_response_content_type(0, "application/json")
    return json.dumps(prediction)
