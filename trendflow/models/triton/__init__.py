"""Models behind an NVIDIA Triton Inference Server: its repository, a server from a Python wheel, and its client.

`config` says what an entry looks like to Triton, `placement` on which GPUs, `repository` writes it to disk.
`environment`, `process`, `server` and `state` run a server on this machine without containers. `connection`, `request`,
`wire`, `shared_memory` and `runtime` are the client. Nothing else imports `tritonclient`.
"""
