"""Prometheus metrics that any process of a deployment has: of itself, its host, its GPUs and its requests to the store.

| module | job |
|---|---|
| `process` | the metrics; the service adds those of the deployment to them |
| `host`, `gpu` | where their values come from |
| `server` | telling them on a port, for processes that serve nothing else |
"""
