"""`trendflow triton`: a model server on this machine, and the repository for servers elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from trendflow.commands.console import err, out, table
from trendflow.config import Settings, ensure_home, load_settings
from trendflow.contracts.errors import TrendFlowError, unwritable
from trendflow.loopback import HOST
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.store import WeightsStore
from trendflow.models.triton import server
from trendflow.models.triton.connection import Session
from trendflow.models.triton.environment import ServerEnvironment, ensure_environment, open_environment
from trendflow.models.triton.placement import place, visible_gpus
from trendflow.models.triton.repository import Repository, plan_repository, require_replaceable, write_repository
from trendflow.models.triton.state import ServerState, endpoint, read_state

_LOCK_TIMEOUT_S = 5.0


def up(profile: str | None, ports: dict[str, int | None]) -> int:
    """Start a server with the models of a profile and wait until all of them are ready.

    Raises what `ensure_server` raises.
    """
    settings = load_settings()
    ensure_home(settings)
    with err.status("preparing the server") as line:
        state, note = ensure_server(settings, profile or settings.profile, ports, line.update)
    _print_addresses(state)
    out.print(note)
    return 0


def ensure_server(
    settings: Settings, profile: str, ports: dict[str, int | None], tell: Callable[[str], None]
) -> tuple[ServerState, str]:
    """A server with the models of a profile, all of them ready, and what was done for it; `tell` hears of the steps.

    A server that runs already with the same models is left alone. Raises what `server.start` raises,
    `insufficient_gpu_memory` when the models cannot fit the GPUs of this host, and `model_load_failed` when a model
    does not load; the server is then ended again.
    """
    with _exclusive(settings):
        current = clear_dead_server(settings)
        target = settings.triton_dir / "repository"
        entries = _entries(settings, profile)
        on_gpu = any(entry.device_policy == "cuda" for entry in entries)
        placement = place(entries, visible_gpus()) if on_gpu else None
        store, threads = WeightsStore(settings.models_dir), settings.onnx_threads
        if current is not None:
            # What a running server serves is not written over: it reads a model again when its process was lost.
            wanted = plan_repository(entries, store, target, threads=threads, placement=placement)
            _require_same(current, wanted, entries, ports)
            return current, "it runs already"
        tell("preparing the server")
        environment = _environment(settings)
        written = write_repository(entries, store, target, threads=threads, placement=placement)
        tell("starting the server")
        state = _start_ready(settings, environment, written, entries, ports)
    return state, f"{len(written.models)} models are ready"


def down() -> int:
    """End the server of this deployment. Raises `triton_unavailable` when none was started."""
    settings = load_settings()
    if read_state(settings.triton_dir) is None:  # asked before, so that nothing is created for a server never started
        raise _never_started()
    with _exclusive(settings):
        state = read_state(settings.triton_dir)
        if state is None:
            raise _never_started()
        ended = server.stop(settings.triton_dir, state)
    out.print(f"server {state.pid} {'ended' if ended else 'was gone already'}")
    return 0


def status() -> int:
    """Print where the server is and how it sees its models. Raises `triton_unavailable` unless it is ready.

    Of the server of this deployment each model executes a small batch: one whose process died is called ready still.
    """
    settings = load_settings()
    url = settings.triton_url
    state = None if url is not None else read_state(settings.triton_dir)
    if url is None and state is None:
        raise _never_started()
    if state is not None:
        _require_alive(state)
        _print_addresses(state)
    rows, broken, lost = [], [], []
    with _session(endpoint(url, settings.triton_dir)) as session:
        for model in session.models():
            condition = model.state
            if condition == "READY" and state is not None and not _executes(session, settings, model.name):
                condition = "LOST"
                lost.append(model.name)
            elif condition != "READY":
                broken.append(model.name)
            rows.append([model.name, model.version, _styled(condition), model.reason.partition("\n")[0]])
    out.print(table("models", ["model", "version", "state", "reason"], rows))
    if broken:
        raise TrendFlowError("model_load_failed", f"Models are not ready: {', '.join(broken)}.", models=broken)
    if lost:
        raise TrendFlowError(
            "triton_unavailable",
            f"The Triton server lost the processes of {', '.join(lost)}; end it and start it again.",
            models=lost,
        )
    return 0


def repository(output: Path, profile: str | None) -> int:
    """Write the model repository of a profile for Triton's container images.

    Raises `config_invalid` for a folder that holds something else: it would be deleted.
    """
    settings = load_settings()
    target = output.absolute()
    require_replaceable(target)
    written = write_repository(
        _entries(settings, profile or settings.profile),
        WeightsStore(settings.models_dir),
        target,
        containers=True,
        threads=settings.onnx_threads,
    )
    out.print(f"{len(written.models)} models: {', '.join(written.models)}", highlight=False)
    return 0


def clear_dead_server(settings: Settings) -> ServerState | None:
    """The server that runs here; what a dead one left behind is cleared away."""
    state = read_state(settings.triton_dir)
    if state is None or state.is_alive:
        return state
    server.stop(settings.triton_dir, state)
    return None


def _never_started() -> TrendFlowError:
    return TrendFlowError("triton_unavailable", "No Triton server was started here.")


def _entries(settings: Settings, profile: str) -> list[CatalogueEntry]:
    """The entries of a profile that a Triton server can execute, whichever runtime the profile gives them."""
    from trendflow.orchestration.deployment import open_deployment

    deployment = open_deployment(settings)
    names = sorted(set(deployment.graph.profile(profile).models.values()))
    entries = [entry for name in names if (entry := deployment.catalogue[name]).is_servable]
    if not entries:
        raise TrendFlowError(
            "config_invalid", f"The profile {profile!r} has no model that a Triton server could execute."
        )
    return entries


def _environment(settings: Settings) -> ServerEnvironment:
    if settings.triton_env is not None:
        return open_environment(settings.triton_env)
    try:
        return ensure_environment(settings.triton_dir / "env")
    except TrendFlowError as error:
        if error.detail.get("output"):
            err.print(error.detail["output"], markup=False, highlight=False)
        raise


def _start_ready(
    settings: Settings,
    environment: ServerEnvironment,
    repository: Repository,
    entries: list[CatalogueEntry],
    ports: dict[str, int | None],
) -> ServerState:
    """A server all of whose models are ready, or none. Of one that died the end of its log is printed."""
    state: ServerState | None = None
    try:
        state = server.start(settings.triton_dir, environment, repository, ports)
        _require_ready(state, entries)
    except BaseException as error:
        tail = error.detail.get("log") if isinstance(error, TrendFlowError) else None
        if state is not None:
            tail = tail or state.log_tail()
            server.stop(settings.triton_dir, state)
        if tail and not isinstance(error, KeyboardInterrupt):
            err.print(tail, markup=False, highlight=False)
        raise
    return state


def _require_same(
    current: ServerState, wanted: Repository, entries: list[CatalogueEntry], ports: dict[str, int | None]
) -> None:
    """A running server must be what is wanted and work: its start may have been interrupted."""
    if current.repository_digest != wanted.digest:
        raise TrendFlowError(
            "config_invalid",
            "A Triton server with other models runs already; end it with 'trendflow triton down' first.",
        )
    used = {"http": current.http_port, "grpc": current.grpc_port, "metrics": current.metrics_port}
    if any(port not in (None, used[name]) for name, port in ports.items()):
        raise TrendFlowError(
            "config_invalid",
            "A Triton server runs already on other ports; end it with 'trendflow triton down' first.",
        )
    server.await_live(current)
    _require_ready(current, entries)


def _require_ready(state: ServerState, entries: list[CatalogueEntry]) -> None:
    with _session(state.grpc_url) as session:
        for entry in entries:
            session.require(entry)
            session.prove(entry)


def _require_alive(state: ServerState) -> None:
    if state.is_elsewhere:
        raise TrendFlowError(
            "triton_unavailable",
            f"The Triton server of this folder was started on the host {state.host} and serves that host alone.",
            host=state.host,
        )
    if not state.is_alive:
        err.print(state.log_tail(), markup=False, highlight=False)
        raise TrendFlowError("triton_unavailable", "The Triton server ended by itself; its last words are above.")


def _executes(session: Session, settings: Settings, name: str) -> bool:
    """Whether a model does its work. What the catalogue does not know cannot be asked."""
    from trendflow.orchestration.deployment import open_deployment

    entry = open_deployment(settings).catalogue.entries.get(name)
    if entry is None:
        return True
    try:
        session.prove(entry)
    except TrendFlowError as error:
        if error.error_code == "triton_unavailable" and not session.is_live:
            raise  # not the model, but the server has gone
        return False
    return True


@contextmanager
def _session(url: str) -> Iterator[Session]:
    session = Session(url, shared_memory=False)
    try:
        yield session
    finally:
        session.close()


@contextmanager
def _exclusive(settings: Settings) -> Iterator[None]:
    """Two commands must not start, end and rewrite one server at the same time."""
    lock = FileLock(settings.triton_dir / ".lock")
    try:
        settings.triton_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=_LOCK_TIMEOUT_S)
    except Timeout as exc:
        raise TrendFlowError("config_invalid", "Another command is at work on this Triton server.") from exc
    except OSError as exc:
        raise unwritable(exc, "The folder of the Triton server") from exc
    try:
        yield
    finally:
        lock.release()


def _print_addresses(state: ServerState) -> None:
    rows = [
        ["process", str(state.pid)],
        ["gRPC", state.grpc_url],
        ["HTTP", f"{HOST}:{state.http_port}"],
        ["metrics", f"http://{HOST}:{state.metrics_port}/metrics"],
        ["log", state.log],
    ]
    out.print(table(None, ["server", ""], rows))


def _styled(state: str) -> str:
    return f"[{'green' if state == 'READY' else 'red'}]{state}[/]"
