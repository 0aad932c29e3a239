"""Sends one webhook: to the address that was checked, signed, tried again after outages."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import anyio
import httpx

from trendflow.contracts.errors import TrendFlowError
from trendflow.service.webhook_signature import signed_headers
from trendflow.service.webhook_target import Resolver, Target, parse_target, public_address, resolve
from trendflow.state.clock import Clock

log = logging.getLogger(__name__)

WAITS_SEC = (5.0, 30.0, 120.0)
"""Before the second, third and fourth try."""
TIMEOUT_SEC = 5.0
_AGAIN = (408, 425, 429)


@dataclass(frozen=True)
class Attempt:
    """One try. `http_status` is that of the answer, if there was one; `error_code` is None for a success."""

    ts: str
    http_status: int | None
    error_code: str | None

    @property
    def again(self) -> bool:
        """Whether another try may help."""
        if self.http_status is not None:
            return self.http_status >= 500 or self.http_status in _AGAIN
        return self.error_code in ("network_error", "timeout")


class WebhookSender:
    """`find` gives the one address a target may be reached at; tests with a server of their own bring another."""

    def __init__(
        self,
        secret: bytes,
        clock: Clock,
        *,
        resolver: Resolver = resolve,
        find: Callable[[Target, Resolver], str] = public_address,
        tls: ssl.SSLContext | None = None,
        waits_sec: Sequence[float] = WAITS_SEC,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        if not secret:
            raise TrendFlowError("config_invalid", "Webhooks need a key to be signed with.")
        self._secret, self._clock = secret, clock
        self._resolver, self._find, self._tls = resolver, find, tls
        self._waits, self._sleep = waits_sec, sleep

    async def send(self, url: str, body: bytes) -> list[Attempt]:
        """All tries, the last of which succeeded or was given up. Raises nothing: a webhook never changes a run."""
        attempts: list[Attempt] = []
        address: str | None = None
        for wait in (0.0, *self._waits):
            if attempts:
                await self._sleep(wait)
            ts = self._clock.utc()
            try:
                with anyio.fail_after(TIMEOUT_SEC):
                    target = parse_target(url)
                    if address is None:  # the name is resolved once, later tries go to the same address
                        address = await anyio.to_thread.run_sync(
                            self._find, target, self._resolver, abandon_on_cancel=True
                        )
                    status = await self._post(target, address, ts, body)
                attempts.append(Attempt(ts, status, None if 200 <= status < 300 else "network_error"))
            except TimeoutError:
                attempts.append(Attempt(ts, None, "timeout"))
            except httpx.HTTPError:
                attempts.append(Attempt(ts, None, "network_error"))
            except TrendFlowError as error:
                attempts.append(Attempt(ts, None, error.error_code))
            # What no one foresaw about one address is final and recorded: raised, it would end the deliveries of all
            # others, and come back with every restart. Its text may quote the letter.
            except Exception as error:
                log.error("a webhook met an unexpected %s", type(error).__name__)
                attempts.append(Attempt(ts, None, "internal_error"))
            if attempts[-1].error_code is None or not attempts[-1].again:
                break
        return attempts

    async def _post(self, target: Target, address: str, ts: str, body: bytes) -> int:
        """POST to `address` under the target's name; the answer's body is not read. Redirects are answers."""
        host = f"[{address}]" if ":" in address else address
        headers = {
            "Host": target.authority,
            "Content-Type": "application/json",
            "User-Agent": "TrendFlow-Webhook/1",
            **signed_headers(self._secret, ts, body),
        }
        # No proxies of the environment, no redirects: both would lead elsewhere than to the checked address.
        async with (
            httpx.AsyncClient(
                verify=self._tls or ssl.create_default_context(), trust_env=False, follow_redirects=False, timeout=None
            ) as client,
            client.stream(
                "POST",
                f"https://{host}:{target.port}{target.path}",
                content=body,
                headers=headers,
                extensions={"sni_hostname": target.host},
            ) as answer,
        ):
            return answer.status_code
