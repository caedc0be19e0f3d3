"""What a service tells Prometheus."""

import threading
from http.server import HTTPServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server

from qmd_schema.errors import UserError

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600, 3600)
_SIZES = (1, 4, 16, 64, 256, 1024, 4096)


class ServerMetrics:
    """The figures of one server, in a registry of its own, with those of its process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter("foundry_requests", "Calls that ended.", ["method", "code"], registry=self.registry)
        self.seconds = Histogram(
            "foundry_request_seconds", "Time of a call.", ["method"], registry=self.registry, buckets=_SECONDS
        )
        self.batch_size = Histogram(
            "foundry_batch_size", "Items handled in one go.", ["method"], registry=self.registry, buckets=_SIZES
        )
        self.in_flight = Gauge("foundry_requests_in_flight", "Calls that run or wait.", registry=self.registry)
        self.rejections = Counter("foundry_rejections", "Calls turned away.", ["reason"], registry=self.registry)

    def serve(self, port: int) -> tuple[HTTPServer, threading.Thread]:
        """Answers `GET /metrics` on loopback until the server it returns is shut down. Raises UserError for a port."""
        try:
            return start_http_server(port, addr="127.0.0.1", registry=self.registry)
        except OSError as error:
            raise UserError(
                f"metrics port {port} on 127.0.0.1: {error.strerror}; choose another metrics_port."
            ) from error
