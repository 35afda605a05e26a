"""What Prometheus reads of the service."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

# seconds of answers, from milliseconds to minutes
_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """Counts of one service, in a registry of its own.

    Example
    -------
    >>> metrics = Metrics()
    >>> metrics.requests.labels(path="/embed", status="200").inc()
    >>> b'mamba_speech_requests_total{path="/embed",status="200"} 1.0' in metrics.text()
    True
    """

    def __init__(self):
        # the time at which each count began would double the text
        disable_created_metrics()
        self.registry = CollectorRegistry()
        options = {"registry": self.registry}
        name = "mamba_speech_{}".format
        self.requests = Counter(name("requests"), "Requests", ["path", "status"], **options)
        self.seconds = Histogram(
            name("request_seconds"), "Time of requests", ["path"], buckets=_BUCKETS, **options
        )
        self.audio = Counter(name("audio_seconds"), "Audio received", ["model"], **options)
        self.batches = Histogram(
            name("batch_requests"),
            "Requests in a batch",
            ["model"],
            buckets=(1, 2, 4, 8, 16, 32, 64),
            **options,
        )
        self.work = Counter(name("model_seconds"), "Time of models", ["model"], **options)
        self.streams = Gauge(name("streams"), "Streams that are open", **options)
        self.waiting = Gauge(name("waiting"), "Requests that wait", ["model"], **options)

    def observe_batch(self, model, count, seconds):
        """Count a batch."""
        self.batches.labels(model=model).observe(count)
        self.work.labels(model=model).inc(seconds)

    def text(self):
        """Prometheus' text format, in bytes."""
        return generate_latest(self.registry)
