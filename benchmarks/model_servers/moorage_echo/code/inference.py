"""The echo model behind Moorage's own model host."""


def model_fn(model_dir):
    return lambda data: data


def predict_fn(data, model):
    return model(data)
