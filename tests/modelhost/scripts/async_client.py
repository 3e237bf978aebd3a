"""Awaits something for each request, and sets up before the model is loaded."""

import asyncio

READY = []


def pre_model_fn(model_dir):
    READY.append("before")


def model_fn(model_dir):
    return READY


def model_warmup_fn(model_dir, model):
    model.append("warm")


async def predict_fn(data, model):
    await asyncio.sleep(0)
    return [*model, *data]
