"""Plain proxies on one core with kept-alive connections to the container, each set up as its documentation has it.

nginx: "Module ngx_http_upstream_module", keepalive. HAProxy: "Configuration Manual", http-reuse and pool-max-conn.
Envoy: "What are best practices for benchmarking Envoy?" (no circuit breakers, request ids or dynamic statistics).
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from harness import SUBJECT_CORE, find, process

PACKAGES = {
    "nginx": "Debian: apt-get install nginx-light",
    "haproxy": "Debian: apt-get install haproxy",
    "envoy": "make build/bench",
}


@contextmanager
def nginx(port: int, container_port: int) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "nginx.conf"
        config.write_text(
            f"""
            daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
            events {{ worker_connections 4096; }}
            http {{
                access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};
                fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
                keepalive_requests 100000000;
                upstream echo {{ server 127.0.0.1:{container_port}; keepalive 256; keepalive_requests 100000000; }}
                server {{
                    listen 127.0.0.1:{port};
                    location / {{ proxy_pass http://echo; proxy_http_version 1.1; proxy_set_header Connection ""; }}
                }}
            }}
            """
        )
        with process(find("nginx"), "-e", f"{folder}/error.log", "-c", config, core=SUBJECT_CORE):
            yield


@contextmanager
def haproxy(port: int, container_port: int) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "haproxy.cfg"
        config.write_text(
            f"""
global
    nbthread 1
    maxconn 4096
defaults
    mode http
    option http-keep-alive
    http-reuse always
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend clients
    bind 127.0.0.1:{port}
    default_backend echo
backend echo
    server container 127.0.0.1:{container_port} pool-max-conn -1
"""
        )
        with process(find("haproxy"), "-db", "-f", config, core=SUBJECT_CORE, quiet=True):
            yield


@contextmanager
def envoy(port: int, container_port: int) -> Iterator[None]:
    v3 = "type.googleapis.com/envoy.extensions"
    router = {"@type": f"{v3}.filters.http.router.v3.Router", "dynamic_stats": False}
    manager = {
        "@type": f"{v3}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "clients",
        "codec_type": "HTTP1",
        "generate_request_id": False,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "echo"}}],
                }
            ]
        },
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    unlimited = {
        f"max_{what}": 1_000_000_000 for what in ("connections", "pending_requests", "requests", "retries")
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    listener = {"name": "clients", "address": _address(port), "filter_chains": [chain]}
    cluster = {
        "name": "echo",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {
            "thresholds": [{"priority": level, **unlimited} for level in ("DEFAULT", "HIGH")]
        },
        "load_assignment": {
            "cluster_name": "echo",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(container_port)}}]}],
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "envoy.json"
        config.write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
        options = ("-c", config, "--concurrency", 1, "--log-level", "error", "--disable-hot-restart")
        with process(find("envoy"), *options, core=SUBJECT_CORE):
            yield


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


PROXIES: dict[str, Callable[[int, int], AbstractContextManager[None]]] = {
    "nginx": nginx,
    "haproxy": haproxy,
    "envoy": envoy,
}
