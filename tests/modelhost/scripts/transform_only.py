"""One function for all: lines of JSON in, lines of JSON out."""

import json


def model_fn(model_dir):
    return len


def transform_fn(model, request_body, content_type, accept):
    lines = request_body.decode().splitlines()
    replies = [json.dumps({"length": model(json.loads(line)["text"])}) for line in lines]
    return "\n".join(replies), "application/jsonlines"
