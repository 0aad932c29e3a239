"""The signature of a webhook: HMAC-SHA256 under the deployment's key over the timestamp followed by the body."""

from __future__ import annotations

import hmac
from hashlib import sha256

TIMESTAMP_HEADER = "X-TrendFlow-Timestamp"
SIGNATURE_HEADER = "X-TrendFlow-Signature"


def signed_headers(secret: bytes, timestamp: str, body: bytes) -> dict[str, str]:
    """Headers with which a receiver proves who sent the body and when.

    The timestamp (UTC, ISO 8601, ends with `Z`) and the body (begins with `{`) cannot be split in two ways. A receiver
    should refuse timestamps that are some minutes old.
    """
    digest = hmac.new(secret, timestamp.encode("ascii") + body, sha256).hexdigest()
    return {TIMESTAMP_HEADER: timestamp, SIGNATURE_HEADER: f"sha256={digest}"}
