"""Parts as they are made."""


def model_fn(model_dir):
    return None


def transform_fn(model, data, content_type, accept):
    def parts():
        for word in data.split():
            yield word.upper() + " "

    return parts(), "text/plain"
