"""Samples as Prometheus reads them, by prometheus-client, which is installed only where it is
wanted.

Knows that library, and nothing of interfaces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pywg.errors import PywgError
from pywg.monitor.series import Sample, Series

Answer = Iterable[tuple[Series, list[Sample]]]
Families = Callable[[], Answer]
MISSING = 'metrics need prometheus-client: pip install "pywg-tunnel[metrics]"'


def check_installed() -> None:
    """Raises PywgError with the line that installs it."""
    try:
        import prometheus_client  # noqa: F401
    except ImportError:
        raise PywgError(MISSING) from None


class _Collector:
    """What the library asks, once for each scrape."""

    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Iterable[Any]:
        from prometheus_client.core import Metric

        for series, samples in self._families():
            # The library appends _total to the name of a counter by itself.
            family = series.name.removesuffix("_total") if series.kind == "counter" else series.name
            metric = Metric(family, series.help, series.kind)
            for values, number in samples:
                labels = dict(zip(series.labels, values, strict=True))
                metric.add_sample(series.name, labels, number)
            yield metric


def application(families: Families) -> Callable[..., Any]:
    """A WSGI application (PEP 3333) with these families at /metrics, in the text format of
    Prometheus: that of OpenMetrics names the type of a counter without its ``_total``, so that
    what is known of a series would not be found by the name other exporters gave it."""
    from prometheus_client import CollectorRegistry, make_wsgi_app

    registry = CollectorRegistry(auto_describe=False)
    # Registered as it is: to describe it would ask every interface.
    registry.register(_Collector(families))
    metrics = make_wsgi_app(registry)

    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if environ.get("PATH_INFO") == "/metrics":
            return metrics({**environ, "HTTP_ACCEPT": ""}, start_response)
        found = environ.get("PATH_INFO") == "/"
        status = "200 OK" if found else "404 Not Found"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [b"pywg exporter: see /metrics\n"]

    return serve


def text(families: Families) -> str:
    """The same as text, for a test and for a file."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(families))
    return bytes(generate_latest(registry)).decode("utf-8")
