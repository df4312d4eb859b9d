"""Prometheus: what it scrapes, and when somebody has to be woken.

Sources: https://prometheus.io/docs/prometheus/latest/configuration/configuration/,
``…/recording_rules/`` and ``…/alerting_rules/``; the metrics are those of
`modelport.serve.metrics`.
"""

from __future__ import annotations

from typing import Any, Final

from modelport.core.options import ServeOptions
from modelport.deploy.service import Footprint

JOB: Final = "modelport"
#: Upper bounds of the server's latency histogram: an alert between two of them would guess.
_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_SLOWER: Final = 10
#: Beyond it requests are refused.
_QUEUE: Final = ServeOptions.max_queue


def scrape_config(server: str, key_file: str) -> dict[str, Any]:
    """Prometheus' own configuration.

    Parameters
    ----------
    server : str
        ``host:port``.
    key_file : str
        The key in Prometheus' container: ``/metrics`` is as guarded as every route.
    """
    return {
        "global": {"scrape_interval": "15s", "scrape_timeout": "10s", "evaluation_interval": "15s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [
            {
                "job_name": JOB,
                "metrics_path": "/metrics",
                "authorization": {"type": "Bearer", "credentials_file": key_file},
                "static_configs": [{"targets": [server]}],
            },
            {"job_name": "prometheus", "static_configs": [{"targets": ["127.0.0.1:9090"]}]},
        ],
    }


def rules(footprint: Footprint, memory: int) -> dict[str, Any]:
    """Recorded series for dashboards, and alerts.

    Parameters
    ----------
    footprint : Footprint
        A server is slow when it takes ten times as long as was measured.
    memory : int
        Bytes that it may take.
    """
    return {
        "groups": [
            {"name": "modelport", "rules": [*_records(), *_alerts(footprint, memory)]},
        ]
    }


def _records() -> list[dict[str, Any]]:
    duration = "modelport_request_duration_seconds"
    quantiles = [
        {
            "record": f"modelport:request_duration_seconds:p{percent}",
            "expr": f"histogram_quantile({percent / 100:g}, "
            f"sum by (model, version, le) (rate({duration}_bucket[5m])))",
        }
        for percent in (50, 99)
    ]
    return [
        {
            "record": "modelport:requests:rate5m",
            "expr": "sum by (model, version) (rate(modelport_requests_total[5m]))",
        },
        {
            # Without a failure there is no series of failures: zero, not nothing.
            "record": "modelport:failures:ratio5m",
            "expr": "(sum by (model, version) (rate(modelport_requests_total"
            '{code=~"5..|other"}[5m])) or 0 * modelport:requests:rate5m) '
            "/ (modelport:requests:rate5m > 0)",
        },
        *quantiles,
    ]


def _alerts(footprint: Footprint, memory: int) -> list[dict[str, Any]]:
    wanted = _SLOWER * footprint.latency
    slow = next((bound for bound in _BUCKETS if bound >= wanted), _BUCKETS[-1])
    return [
        _alert(
            "ModelportDown", f'up{{job="{JOB}"}} == 0', "1m", "critical",
            "{{ $labels.instance }} cannot be asked for its metrics",
        ),
        _alert(
            "ModelportModelNotReady", "modelport_model_ready == 0", "1m", "critical",
            "{{ $labels.model }} does not answer: its golden records failed, or it is loading",
        ),
        _alert(
            "ModelportFailures", "modelport:failures:ratio5m > 0.01", "5m", "critical",
            "{{ $labels.model }} fails {{ $value | humanizePercentage }} of its requests",
        ),
        _alert(
            "ModelportSlow", f"modelport:request_duration_seconds:p99 > {slow:g}", "10m", "warning",
            f"1 of 100 requests to {{{{ $labels.model }}}} takes longer than {slow:g} s; one was "
            f"measured to take {footprint.latency:g} s",
        ),
        _alert(
            "ModelportQueue", f"modelport_requests_in_flight > {_QUEUE // 2}", "2m", "warning",
            f"{{{{ $labels.model }}}} has {{{{ $value }}}} requests waiting; beyond {_QUEUE} it "
            "refuses more",
        ),
        _alert(
            "ModelportRefusedKeys",
            'sum by (instance) (rate(modelport_requests_total{code="401"}[5m])) > 1', "10m",
            "warning", "{{ $value | humanize }} requests a second come without a valid key",
        ),
        _alert(
            "ModelportMemory",
            f'process_resident_memory_bytes{{job="{JOB}"}} > {int(0.9 * memory)}', "5m", "warning",
            "{{ $labels.instance }} takes {{ $value | humanize1024 }}B, over 90 % of its limit",
        ),
    ]  # fmt: skip


def _alert(name: str, expression: str, lasting: str, severity: str, summary: str) -> dict[str, Any]:
    return {
        "alert": name,
        "expr": expression,
        "for": lasting,
        "labels": {"severity": severity},
        "annotations": {"summary": summary},
    }
