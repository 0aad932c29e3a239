"""What a failed store request means: a sentence to act on, and whether trying again can help.

obstore raises one exception type for most failures of S3 and tells them apart in its text alone. Only words from closed
lists are taken from there (the status, the S3 error code, the kind of a connection failure): the rest quotes the
endpoint and the server's answer.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass

from obstore.exceptions import InvalidPathError, NotSupportedError, PermissionDeniedError, UnauthenticatedError

from trendflow.contracts.errors import TrendFlowError

_STATUS = re.compile(r"status code: (\d{3})\b")
_CODE = re.compile(r"<Code>([A-Za-z]{1,64})</Code>")
_INSTANCE_CREDENTIALS = re.compile(r"/latest/(?:api/token|meta-data)")
_ALTERED_BY_WAITING = (408, 409, 412, 429)

_CREDENTIALS = "in TRENDFLOW_STORE_OPTIONS or the AWS_* variables"
_CODES = {
    "NoSuchBucket": "The bucket of the S3 store does not exist; create it or correct TRENDFLOW_STORE_URL.",
    "InvalidAccessKeyId": f"The S3 store does not know the access key; check access_key_id {_CREDENTIALS}.",
    "SignatureDoesNotMatch": f"The secret key does not fit the access key; check secret_access_key {_CREDENTIALS}.",
    "ExpiredToken": f"The session token of the S3 store has expired; renew session_token {_CREDENTIALS}.",
    "InvalidToken": f"The S3 store does not accept the session token; check session_token {_CREDENTIALS}.",
    "RequestTimeTooSkewed": "The S3 store refuses requests because the clock of this machine is wrong.",
}
_WRONG_REGION = f"The bucket of the S3 store is in another region; check region {_CREDENTIALS}."
_REGION_CODES = ("AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect")
_NO_RIGHTS = "The S3 store denies access to the bucket; check the credentials and what they are allowed to do."
_NOT_S3 = "Something answers at the endpoint of the S3 store, but not as an S3 store does; check endpoint and bucket."
_NO_CREDENTIALS = f"There are no credentials for the S3 store; set access_key_id and secret_access_key {_CREDENTIALS}."

# The kinds of a failed connection, by the words the HTTP client has for them.
_CONNECTION = {
    "ConnectionRefused": "The S3 store cannot be reached: nothing listens at its endpoint.",
    "dns error": "The S3 store cannot be reached: the host name of its endpoint is not known.",
    "InvalidContentType": "The S3 store cannot be reached: its endpoint does not speak HTTPS.",
    "InvalidCertificate": "The S3 store cannot be reached: the certificate of its endpoint is not trusted.",
    "kind: Connect": "The S3 store cannot be reached: no connection to its endpoint comes about.",
}


@dataclass(frozen=True)
class Diagnosis:
    """A failed request. `may_have_worked` is False when the request certainly changed nothing."""

    error: TrendFlowError
    retry: bool
    may_have_worked: bool


def diagnose(exc: Exception, key: str) -> Diagnosis:
    """What `exc`, raised by a request on `key` (or a folder), means.

    `storage_unavailable` for outages, which are worth a retry; `config_invalid` for what only a person can put right.
    """
    if isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT):
        full = TrendFlowError("storage_unavailable", "The disk of this machine is full.", key=key, errno=exc.errno)
        return Diagnosis(full, retry=False, may_have_worked=False)
    text = str(exc)
    for word, sentence in _CONNECTION.items():
        if word in text:
            return _outage(sentence, key, may_have_worked=False)
    if _INSTANCE_CREDENTIALS.search(text):
        # A machine whose role gives credentials may fail to do so for a moment.
        return Diagnosis(TrendFlowError("config_invalid", _NO_CREDENTIALS), retry=True, may_have_worked=False)
    if "Received redirect without LOCATION" in text:
        return _mistake(_WRONG_REGION)
    if "Got invalid list response" in text:
        return _mistake(_NOT_S3)
    if isinstance(exc, InvalidPathError | NotSupportedError):
        return _mistake(f"The store does not support the request on {key!r}.", key=key)
    status, code = _STATUS.search(text), _CODE.search(text)
    if status is not None:
        return _answered(int(status[1]), code[1] if code else None, key)
    if isinstance(exc, PermissionDeniedError | UnauthenticatedError):
        return _mistake(_NO_RIGHTS)
    return _outage(f"The store did not answer for {key!r}.", key, may_have_worked=True)


def names_missing_bucket(exc: Exception) -> bool:
    """True for a "not found" that is about the bucket and not about an object in it."""
    found = _CODE.search(str(exc))
    return found is not None and found[1] == "NoSuchBucket"


def _answered(status: int, code: str | None, key: str) -> Diagnosis:
    detail = {"status": status, "code": code, "key": key}
    if code in _CODES:
        return _mistake(_CODES[code], **detail)
    if code in _REGION_CODES or 300 <= status < 400:
        return _mistake(_WRONG_REGION, **detail)
    if status in (401, 403):
        return _mistake(_NO_RIGHTS, **detail)
    if status in (404, 405):
        return _mistake(_NOT_S3, **detail)
    if 400 <= status < 500 and status not in _ALTERED_BY_WAITING:
        return _mistake(f"The S3 store refuses the request on {key!r} with status {status}.", **detail)
    return _outage(f"The S3 store answers with status {status} for {key!r}.", key, may_have_worked=status >= 500)


def _mistake(sentence: str, **detail: object) -> Diagnosis:
    return Diagnosis(TrendFlowError("config_invalid", sentence, **detail), retry=False, may_have_worked=False)


def _outage(sentence: str, key: str, *, may_have_worked: bool) -> Diagnosis:
    return Diagnosis(TrendFlowError("storage_unavailable", sentence, key=key), True, may_have_worked)
