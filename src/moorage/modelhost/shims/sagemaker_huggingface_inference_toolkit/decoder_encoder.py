"""What requests and replies of the Hugging Face images look like."""

from typing import Any

from moorage.modelhost.families.huggingface import formats


def decode(content: Any, content_type: str = "application/json") -> Any:
    return formats.decode(content, content_type)


def decode_json(content: Any) -> Any:
    return decode(content)


def decode_csv(content: Any) -> Any:
    return decode(content, "text/csv")


def decode_image(content: Any) -> Any:
    return decode(content, "image/x-image")


def decode_audio(content: Any) -> Any:
    return decode(content, "audio/x-audio")


def encode(content: Any, accept_type: str = "application/json") -> Any:
    """Text for JSON and CSV, else bytes."""
    media = formats.choose(accept_type)
    body = formats.encode(content, media)
    return body.decode() if media in ("application/json", "text/csv") else body


def encode_json(content: Any) -> Any:
    return encode(content)


def encode_csv(content: Any) -> Any:
    return encode(content, "text/csv")


def encode_image(content: Any) -> Any:
    return encode(content, "image/png")
