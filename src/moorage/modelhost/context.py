"""The `context` argument of user functions, with the method names the SageMaker toolkit documents."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moorage.modelhost.http import sendable

logger = logging.getLogger("metrics")

# The only reply headers that have a meaning for a SageMaker client besides Content-Type.
FORWARDED_HEADERS = frozenset(
    {
        "x-amzn-sagemaker-custom-attributes",
        "x-amzn-sagemaker-session-id",
        "x-amzn-sagemaker-new-session-id",
        "x-amzn-sagemaker-closed-session-id",
    }
)


class Headers(dict[str, str]):
    """A dict whose keys are header names: upper and lower case are the same."""

    def __init__(self, headers: Mapping[str, str] | None = None) -> None:
        super().__init__({name.lower(): value for name, value in (headers or {}).items()})

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __setitem__(self, name: str, value: str) -> None:
        super().__setitem__(name.lower(), value)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)


class RequestProcessor:
    """One request and what is known of its reply: the toolkit's `context.request_processor[0]`."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._request_headers = Headers(headers)
        self._response_headers = Headers()
        self._status = 200
        self._phrase = ""

    @property
    def is_as_it_was(self) -> bool:
        """Whether nobody has said anything about the reply."""
        return not self._response_headers and self._status == 200

    def get_request_property(self, key: str) -> str | None:
        value: str | None = self._request_headers.get(key)
        return value

    def get_request_properties(self) -> Headers:
        return self._request_headers

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        if not 200 <= int(code) <= 599:
            raise ValueError(f"the response status cannot be {code}: it must be from 200 to 599")
        self._status = int(code)
        self._phrase = reason_phrase or ""

    def get_response_status_code(self) -> int:
        return self._status

    def get_response_status_phrase(self) -> str:
        return self._phrase

    def add_response_property(self, key: str, value: str) -> None:
        self._response_headers[key] = sendable(str(value))

    def get_response_headers(self) -> Headers:
        return self._response_headers

    def get_response_header(self, key: str | None = None) -> Any:
        """Multi-model-server gives all of them, TorchServe the named one."""
        return self._response_headers if key is None else self._response_headers.get(key)


class Metrics:
    """Writes what user code counts and measures to the log, in the model servers' own format."""

    def add_counter(self, name: str, value: float, idx: Any = None, dimensions: Any = None) -> None:
        self.add_metric(name, value, idx, "Count", dimensions)

    def add_time(
        self, name: str, value: float, idx: Any = None, unit: str = "ms", dimensions: Any = None
    ) -> None:
        self.add_metric(name, value, idx, {"ms": "Milliseconds", "s": "Seconds"}.get(unit, unit), dimensions)

    def add_size(
        self, name: str, value: float, idx: Any = None, unit: str = "MB", dimensions: Any = None
    ) -> None:
        units = {"B": "Bytes", "kB": "Kilobytes", "MB": "Megabytes", "GB": "Gigabytes"}
        self.add_metric(name, value, idx, units.get(unit, unit), dimensions)

    def add_percent(self, name: str, value: float, idx: Any = None, dimensions: Any = None) -> None:
        self.add_metric(name, value, idx, "Percent", dimensions)

    def add_error(self, name: str, value: Any, dimensions: Any = None) -> None:
        self.add_metric(name, value, None, "", dimensions)

    def add_metric(
        self, name: str, value: Any, idx: Any = None, unit: str | None = None, dimensions: Any = None
    ) -> None:
        logger.info("%s.%s:%s|#%s", name, unit or "Unit", value, _dimensions(dimensions))


def _dimensions(dimensions: Any) -> str:
    named = [(getattr(each, "name", each), getattr(each, "value", "")) for each in dimensions or ()]
    return ",".join(f"{name}:{value}" for name, value in named)


def gpu_of(worker: int) -> int | None:
    """The GPU for a worker: they take turns. None where there is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        count = len([each for each in visible.split(",") if each.strip() not in ("", "-1")])
    else:
        count = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return worker % count if count else None


class Context:
    """What user code may know of the invocation, and set on its reply.

    The toolkit numbers the requests of a batch. There is no batching here, so the index may be left out:
    `set_response_header(name, value)` is `set_response_header(0, name, value)`.
    """

    def __init__(
        self,
        *,
        model_dir: Path,
        headers: Mapping[str, str],
        request_id: str = "",
        gpu_id: int | None = None,
    ) -> None:
        self.model_name = "model"
        self.manifest: dict[str, Any] = {}
        self.metrics = Metrics()
        self.system_properties = {
            "model_dir": str(model_dir),
            "gpu_id": gpu_id,
            "batch_size": 1,
            "server_name": "moorage",
            "server_version": "1.0",
        }
        self.request_ids = {0: request_id}
        self.request_processor = [RequestProcessor(headers)]

    def get_request_id(self, idx: int = 0) -> str | None:
        return self.request_ids.get(idx)

    def get_request_header(self, *idx_and_key: Any) -> str | None:
        return self.request_processor[0].get_request_property(idx_and_key[-1])

    def get_all_request_header(self, idx: int = 0) -> Headers:
        return self.request_processor[idx].get_request_properties()

    def set_response_header(self, *idx_key_value: Any) -> None:
        *_, key, value = idx_key_value
        self.request_processor[0].add_response_property(key, value)

    def get_response_headers(self, idx: int = 0) -> Headers:
        return self.request_processor[idx].get_response_headers()

    def set_response_content_type(self, *idx_and_value: Any) -> None:
        self.set_response_header("content-type", idx_and_value[-1])

    def get_response_content_type(self, idx: int = 0) -> str | None:
        content_type: str | None = self.get_response_headers(idx).get("content-type")
        return content_type

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        self.request_processor[idx].report_status(code, phrase)

    @property
    def has_replied(self) -> bool:
        """Whether user code has set anything of the reply."""
        return not self.request_processor[0].is_as_it_was

    # Multi-model-server's older name for the same.
    set_http_response_status = set_response_status

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        self.set_response_status(code, phrase)

    def get_response_status(self, idx: int = 0) -> tuple[int, str]:
        processor = self.request_processor[idx]
        return processor.get_response_status_code(), processor.get_response_status_phrase()
