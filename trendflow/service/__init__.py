"""The HTTP service: submissions in, status, events and results out. Starts no run itself and holds no state of runs.

    python -m trendflow.service                                     # the deployment that the environment describes

    parts = ServiceParts(store=…, states=…, inbox=…, desk=…, …)     # `parts`: everything that a deployment decides
    app = create_app(parts, webhooks=…, metric_sources=[…])         # `app`: an ASGI application
    make_server(app, host, port).run()                              # `server`: on the loopback interface by default

| module | job |
|---|---|
| `assembly` | the parts of a deployment, from its settings; the only module that knows `orchestration` |
| `app`, `server`, `parts` | putting the application together, listening, what it stands on |
| `submission_routes`, `run_routes`, `admin_routes`, `operation_routes` | the paths |
| `estimates` | when a run is expected to end |
| `run_lookup`, `run_archive`, `event_stream`, `content`, `byte_ranges`, `run_report` | what is read of a run |
| `users`, `rate_limits`, `gate` | who may ask, how often, how much in one request |
| `failures` | the one form of every refusal |
| `health`, `metrics`, `metrics_feed` | readiness and Prometheus |
| `webhook_target`, `webhook_signature`, `webhook_sender`, `webhook_dispatch` | telling callers that a run ended |

One process serves a deployment: webhooks, rate limits and the numbers of event streams are known to it alone.
"""
