"""The Celery application, the same for launchers and workers."""

from __future__ import annotations

from celery import Celery
from kombu import Exchange, Queue

from trendflow.config import Settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.orchestration.limits import run_limit_s
from trendflow.orchestration.queue.names import DEFAULT_PRIORITY, DEVICE_QUEUES, PRIORITIES, queue_name

RUN_TASK = "trendflow.run"

_EXCHANGE = Exchange("trendflow", type="direct")
_KILL_MARGIN_S = 600.0
_VISIBILITY_MARGIN_S = 3600.0


def broker_url(settings: Settings) -> str:
    """Address of the broker. Raises `config_invalid` when there is none."""
    if settings.broker_url is None:
        raise TrendFlowError("config_invalid", "TRENDFLOW_BROKER_URL is not set; the queue needs its broker.")
    return settings.broker_url.get_secret_value()


def make_app(url: str, max_duration_sec: float) -> Celery:
    """An application that delivers every message at least once, one at a time.

    `max_duration_sec` is that of a video: no run may take longer than its limit, which sets when a child is killed
    and, later than that, when the transport itself gives a message to somebody else.
    """
    run_limit = run_limit_s(max_duration_sec)
    app = Celery("trendflow", broker=url, set_as_current=False)
    app.conf.update(
        task_queues=[
            Queue(name, _EXCHANGE, routing_key=name)
            for name in (queue_name(device, priority) for device in DEVICE_QUEUES for priority in PRIORITIES)
        ],
        task_default_queue=queue_name("cpu", DEFAULT_PRIORITY),
        task_create_missing_queues=False,
        # Acknowledged when the run has ended; given back whole when the process that worked on it is lost or too slow.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_acks_on_timeout=False,
        task_time_limit=run_limit + _KILL_MARGIN_S,
        worker_pool="prefork",
        worker_concurrency=1,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_proc_alive_timeout=600.0,  # a child imports its code first
        # Anybody who reaches the broker could otherwise command workers.
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        task_ignore_result=True,  # Dagster knows how a run ended
        task_serializer="json",
        accept_content=["json"],
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": run_limit + _KILL_MARGIN_S + _VISIBILITY_MARGIN_S,
            "queue_order_strategy": "trendflow.orchestration.queue.fair_order:FairOrder",
            "priority_steps": [0],
            "socket_connect_timeout": 5.0,
            "socket_timeout": 30.0,
            "socket_keepalive": True,
        },
    )
    return app
