"""The metrics of a whole server: summed over its gateways, whatever dies, and for those only who may read them."""

import os
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from moorage.cli.client import PrivateRoutes
from moorage.config import Settings
from tests.servers import ACCOUNT, MoorageServer, eventually

NewServer = Callable[..., MoorageServer]
TOKEN = "a token of a scraper"
DOCUMENTED = (Path(__file__).parent.parent.parent / "docs/metrics.md").read_text()
ECHO = {
    "code/inference.py": """
def model_fn(model_dir):
    return None

def transform_fn(model, body, content_type, accept):
    if bytes(body) == b"fail":
        raise ValueError("as you wish")
    return bytes(body), "text/plain"
"""
}
LABELS = f'account_id="{ACCOUNT}",endpoint_name="echo",variant_name="AllTraffic"'


def scrape(server: MoorageServer, token: str = TOKEN, accept: str = "") -> str:
    headers = {"Authorization": f"Bearer {token}", "Accept": accept}
    with urllib.request.urlopen(
        urllib.request.Request(f"{server.url}/_moorage/metrics", headers=headers)
    ) as reply:
        text: str = reply.read().decode()
    return text


def value(server: MoorageServer, name: str, labels: str = LABELS) -> float | None:
    found = re.search(rf"^{name}{{{re.escape(labels)}}} (\S+)$", scrape(server), re.M)
    return None if found is None else float(found[1])


def value_if_answered(server: MoorageServer, name: str) -> float | None:
    """The scrapes that a controller takes with it are answered, but not with metrics."""
    try:
        return value(server, name)
    except urllib.error.HTTPError as error:
        with error:
            assert error.code == 503
        return None


def invoke(server: MoorageServer, times: int) -> None:
    """Each with a client, and so a connection, of its own: they spread over the gateways."""
    for _ in range(times):
        runtime = server.client("sagemaker-runtime", retries={"mode": "standard", "total_max_attempts": 8})
        runtime.invoke_endpoint(EndpointName="echo", Body=b"hello", ContentType="text/plain")
        runtime.close()


def test_counts_are_summed_over_the_gateways_and_never_go_back(new_server: NewServer) -> None:
    server = new_server(workers=2, metrics_token=TOKEN)
    server.deploy("echo", ECHO)
    invoke(server, 12)
    total = "moorage_invocations_total"
    eventually(lambda: value(server, total) == 12, what=lambda: scrape(server))
    assert value(server, "moorage_overhead_latency_seconds_count") == 12
    assert value(server, "moorage_model_latency_seconds_count") == 12
    connected = 'moorage_gateway_connections{pid="'
    eventually(lambda: scrape(server).count(connected) == 2, what=lambda: scrape(server))
    killed = server.process_of("gateway_process")
    os.kill(killed, signal.SIGKILL)
    seen = [value(server, total)]
    invoke(server, 5)
    eventually(lambda: seen.append(value(server, total)) or seen[-1] == 17, what=lambda: str(seen))
    assert seen == sorted(seen), "the count went back"
    eventually(
        lambda: scrape(server).count(connected) == 2 and f'pid="{killed}"' not in scrape(server),
        what=lambda: scrape(server),
    )
    os.kill(server.process_of("controller_process"), signal.SIGKILL)
    invoke(server, 1)
    eventually(lambda: value_if_answered(server, total) == 1, what=lambda: scrape(server))


def test_every_metric_is_documented(new_server: NewServer) -> None:
    server = new_server(metrics_token=TOKEN)
    server.deploy("echo", ECHO)
    runtime = server.client("sagemaker-runtime")
    with pytest.raises(runtime.exceptions.ModelError):
        runtime.invoke_endpoint(EndpointName="echo", Body=b"fail")
    list(runtime.invoke_endpoint_with_response_stream(EndpointName="echo", Body=b"x")["Body"])
    name = "moorage_invocation_5xx_errors_total"
    eventually(lambda: value(server, name) == 1, what=lambda: scrape(server))
    eventually(
        lambda: value(server, "moorage_first_chunk_latency_seconds_count") == 1, what=lambda: scrape(server)
    )
    assert value(server, "moorage_gateway_error_replies_total", 'code="ModelError"') == 1
    assert value(server, "moorage_endpoints", f'account_id="{ACCOUNT}",status="InService"') == 1
    shown = set(re.findall(r"^# TYPE (\w+)", scrape(server), re.M))
    assert len(shown) > 20
    assert {each for each in shown if f"`{each}`" not in DOCUMENTED} == set()
    openmetrics = scrape(server, accept="application/openmetrics-text; version=1.0.0")
    assert openmetrics.endswith("# EOF\n")
    server.client("sagemaker").delete_endpoint(EndpointName="echo")
    eventually(lambda: 'endpoint_name="echo"' not in scrape(server), what=lambda: scrape(server))


def test_who_may_read_them(new_server: NewServer) -> None:
    server = new_server(metrics_token=TOKEN)
    for token in ("", "a token of a scrapes", TOKEN[:-1]):
        with pytest.raises(urllib.error.HTTPError) as refused:
            scrape(server, token)
        with refused.value as reply:
            assert reply.code == 403
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{server.url}/_moorage/metrics")
    with refused.value as reply:
        assert reply.code == 403
    settings = Settings(data_dir=server.data_dir)
    with PrivateRoutes(settings).open("GET", "metrics") as reply:
        assert b"moorage_process_cpu_seconds_total" in reply.read()


def test_without_the_setting_no_token_opens_them(server: MoorageServer) -> None:
    for token in ("None", TOKEN):
        with pytest.raises(urllib.error.HTTPError) as refused:
            scrape(server, token)
        with refused.value as reply:
            assert reply.code == 403
            assert b"metrics_token" in reply.read()
