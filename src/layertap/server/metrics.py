"""Metrics in the format of Prometheus. Labels are routes, statuses and reasons; never an expression, text or key."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from layertap.server.admission import Admission
from layertap.version import __version__

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TOKENS = (16, 64, 256, 1_024, 2_048, 4_096, 8_192, 16_384, 65_536)


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._requests = Counter("layertap_requests", "Answered requests", ["route", "status"], registry=self.registry)
        self._request_seconds = Histogram(
            "layertap_request_seconds",
            "Seconds from the first byte of a request to its answer",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._queue_seconds = Histogram(
            "layertap_queue_seconds", "Seconds that texts waited", buckets=SECONDS, registry=self.registry
        )
        self._refused = Counter("layertap_refused", "Refused requests", ["reason"], registry=self.registry)
        self._texts = Counter("layertap_texts", "Texts computed", registry=self.registry)
        self._tokens = Counter("layertap_tokens", "Tokens computed", registry=self.registry)
        self._engine_seconds = Counter("layertap_engine_seconds", "Seconds of runs", registry=self.registry)
        self._run_tokens = Histogram("layertap_run_tokens", "Tokens per run", buckets=TOKENS, registry=self.registry)
        self._cost = Gauge("layertap_queue_cost", "Cost queued or running: tokens times blocks", registry=self.registry)
        self._rate = Gauge("layertap_engine_rate", "Measured cost per second", registry=self.registry)
        self._answers = Gauge("layertap_answer_bytes", "Bytes of results under way", registry=self.registry)
        self._ready = Gauge("layertap_ready", "1 while the server is ready", registry=self.registry)
        info = Gauge("layertap_info", "Version and model", ["version", "model"], registry=self.registry)
        info.labels(__version__, model).set(1)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def refused(self, reason: str) -> None:
        """Count a refused request."""
        self._refused.labels(reason).inc()

    def waited(self, seconds: float) -> None:
        """Count the time that the texts of a request waited in the queue."""
        self._queue_seconds.observe(seconds)

    def ran(self, texts: int, tokens: int, seconds: float) -> None:
        """Count a run of the engine."""
        self._texts.inc(texts)
        self._tokens.inc(tokens)
        self._engine_seconds.inc(seconds)
        self._run_tokens.observe(tokens)

    def render(self, admission: Admission, *, ready: bool) -> bytes:
        """Return the metrics as text."""
        self._cost.set(admission.cost)
        self._rate.set(admission.rate)
        self._answers.set(admission.answer)
        self._ready.set(ready)
        return generate_latest(self.registry)
