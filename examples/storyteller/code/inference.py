"""A model that streams: `predict_fn` is a generator, and each word goes out as soon as it is made."""

import json
import random
import time
from pathlib import Path


def model_fn(model_dir):
    return json.loads((Path(model_dir) / "chain.json").read_text())


def predict_fn(data, model):
    """`{"words": 40, "seed": 1, "words_per_second": 30}` → words, as server-sent events."""
    chance = random.Random(data.get("seed"))
    pause = 1 / data.get("words_per_second", 30)
    pair = chance.choice([pair for pair in model if pair[0].isupper()])
    for word in (*pair.split(" "), *_words(chance, model, pair, data.get("words", 40))):
        yield f"data: {json.dumps({'text': word + ' '})}\n\n"
        time.sleep(pause)
    yield "data: [DONE]\n\n"


def _words(chance, model, pair, count):
    for _ in range(count):
        following = model.get(pair) or model[chance.choice(list(model))]
        word = chance.choice(following)
        pair = f"{pair.split(' ')[1]} {word}"
        yield word


def output_fn(prediction, accept):
    return prediction, "text/event-stream"
