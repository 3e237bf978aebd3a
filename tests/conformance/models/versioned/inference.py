"""Works for a moment, then says which version of the model this is."""

import os
import time


def model_fn(model_dir):
    return os.environ["MODEL_VERSION"]


def transform_fn(model, body, content_type, accept):
    time.sleep(0.02)
    return model, "text/plain"
