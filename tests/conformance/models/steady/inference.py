"""Takes 100 milliseconds, then names the process that runs this instance."""

import os
import time


def model_fn(model_dir):
    return None


def transform_fn(model, body, content_type, accept):
    time.sleep(0.1)
    return str(os.getppid()), "text/plain"
