"""Models behind an NVIDIA Triton Inference Server: its repository, a server from a Python wheel, and its client.

`config` says what an entry looks like to Triton, `repository` writes it to disk, `environment` and `server` run a
server on this machine without containers, `connection` and `runtime` are the client. Nothing else imports
`tritonclient`.
"""
