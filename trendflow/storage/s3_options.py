"""The S3 client from the options of a deployment, checked before the first request."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from obstore.exceptions import BaseError, UnknownConfigurationKeyError
from obstore.store import S3Store

from trendflow.contracts.errors import TrendFlowError

if TYPE_CHECKING:
    from obstore.store import S3Config

REQUEST_TIMEOUT = timedelta(seconds=60)

# For suggestions only; the client knows many more, and it alone decides.
_USUAL = ("endpoint", "region", "access_key_id", "secret_access_key", "session_token", "virtual_hosted_style_request")
# One endpoint under the name that beats the others, so that no variable of the machine can overrule an option.
_ENDPOINT = "aws_endpoint_url_s3"
_ENDPOINT_NAMES = (_ENDPOINT, "endpoint_url_s3", "aws_endpoint_url", "aws_endpoint", "endpoint_url", "endpoint")
_ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def open_s3(bucket: str, prefix: str, options: Mapping[str, str]) -> S3Store:
    """An S3 store from options (`endpoint`, `region`, `access_key_id`, `secret_access_key`, …) and `AWS_*` variables.

    Plain HTTP is allowed only when the endpoint itself says `http://`. Retries are the caller's. Raises
    `config_invalid` for an unknown option, a malformed endpoint, and half a pair of credentials.
    """
    config = {name.lower(): value for name, value in options.items()}
    named = [config.pop(name) for name in _ENDPOINT_NAMES if name in config]
    endpoint = next(iter(named + [os.environ[name] for name in _ENDPOINT_VARIABLES if os.environ.get(name)]), None)
    if endpoint is not None:
        config[_ENDPOINT] = _checked_endpoint(endpoint)
    try:
        return S3Store(
            bucket,
            prefix=prefix or None,
            config=cast("S3Config", config),  # which names there are, the client itself checks below
            client_options={"timeout": REQUEST_TIMEOUT, "allow_http": (endpoint or "").lower().startswith("http://")},
            retry_config={"max_retries": 0},
        )
    except UnknownConfigurationKeyError as exc:
        raise _invalid(_unknown_option(str(exc), config)) from exc
    except (BaseError, ValueError, TypeError) as exc:
        raise _invalid(_bad_value(str(exc))) from exc


def _checked_endpoint(endpoint: str) -> str:
    """The endpoint as given. The client would crash on a malformed one at its first request."""
    try:
        parts = urlsplit(endpoint)
        wrong = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
    except ValueError:
        wrong = True
    if wrong or not re.fullmatch(r"[!-~]+", endpoint):
        raise _invalid("The endpoint of the S3 store is not a URL such as https://host or http://host:port.")
    return endpoint


def _unknown_option(text: str, config: Mapping[str, str]) -> str:
    name = next((name for name in config if repr(name) in text), None)
    if name is None:
        return "The S3 store has an unknown option."
    close = difflib.get_close_matches(name, _USUAL, n=1)
    return f"The S3 store knows no option {name!r}" + (f"; did you mean {close[0]!r}?" if close else ".")


def _bad_value(text: str) -> str:
    for missing, name in (("Missing SecretAccessKey", "secret_access_key"), ("Missing AccessKeyId", "access_key_id")):
        if missing in text:
            return f"The credentials of the S3 store are incomplete: {name} is missing."
    return "The options of the S3 store are not valid."


def _invalid(sentence: str) -> TrendFlowError:
    return TrendFlowError("config_invalid", sentence, variable="TRENDFLOW_STORE_OPTIONS")
