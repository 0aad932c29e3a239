"""`trendflow triton`: a model server on this machine, and the repository for servers elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from trendflow.commands.console import err, out, table
from trendflow.config import Settings, ensure_home, load_settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.store import WeightsStore
from trendflow.models.triton import server
from trendflow.models.triton.connection import ModelState, Session
from trendflow.models.triton.environment import ServerEnvironment, ensure_environment, open_environment
from trendflow.models.triton.repository import Repository, write_repository

_LOCK_TIMEOUT_S = 5.0


def up(profile: str | None, ports: dict[str, int | None]) -> int:
    """Start a server with the models of a profile and wait until all of them are ready.

    A server that runs already with the same models is left alone. Raises what `server.start` raises, and
    `model_load_failed` when a model does not load; the server is then ended again.
    """
    settings = load_settings()
    ensure_home(settings)
    with _exclusive(settings):
        current = server.running(settings.triton_dir)
        target = settings.triton_dir / "repository"
        entries = _entries(settings, profile or settings.profile)
        with err.status("preparing the server"):
            repository = write_repository(
                entries, WeightsStore(settings.models_dir), target, threads=settings.onnx_threads
            )
            if current is not None:
                return _keep(current, repository)
            environment = _environment(settings)
        with err.status("starting the server"):
            state = _start_ready(settings, environment, repository, entries, ports)
    _print_addresses(state)
    out.print(f"{len(repository.models)} models are ready")
    return 0


def down() -> int:
    """End the server of this deployment. Raises `triton_unavailable` when none was started."""
    settings = load_settings()
    state = server.read_state(settings.triton_dir)
    if state is None:
        raise _never_started()
    with _exclusive(settings):
        ended = server.stop(settings.triton_dir, state)
    out.print(f"server {state.pid} {'ended' if ended else 'was gone already'}")
    return 0


def status() -> int:
    """Print where the server is and how it sees its models. Raises `triton_unavailable` unless it is ready."""
    settings = load_settings()
    url = settings.triton_url
    if url is None:
        state = server.read_state(settings.triton_dir)
        if state is None:
            raise _never_started()
        if not state.is_alive:
            err.print(state.log_tail(), markup=False, highlight=False)
            raise TrendFlowError("triton_unavailable", "The Triton server ended by itself; its last words are above.")
        _print_addresses(state)
        url = state.grpc_url
    models = _models(url)
    rows = [[model.name, model.version, _styled(model.state), model.reason.partition("\n")[0]] for model in models]
    out.print(table("models", ["model", "version", "state", "reason"], rows))
    broken = [model.name for model in models if model.state != "READY"]
    if broken:
        raise TrendFlowError("model_load_failed", f"Models are not ready: {', '.join(broken)}.", models=broken)
    return 0


def repository(output: Path, profile: str | None) -> int:
    """Write the model repository of a profile for Triton's container images."""
    settings = load_settings()
    written = write_repository(
        _entries(settings, profile or settings.profile),
        WeightsStore(settings.models_dir),
        output.absolute(),
        containers=True,
        threads=settings.onnx_threads,
    )
    out.print(f"{len(written.models)} models: {', '.join(written.models)}", highlight=False)
    return 0


def _never_started() -> TrendFlowError:
    return TrendFlowError("triton_unavailable", "No Triton server was started here.")


def _entries(settings: Settings, profile: str) -> list[CatalogueEntry]:
    """The entries of a profile that a Triton server can execute, whichever runtime the profile gives them."""
    from trendflow.orchestration.deployment import open_deployment

    deployment = open_deployment(settings)
    names = sorted(set(deployment.graph.profile(profile).models.values()))
    return [entry for name in names if (entry := deployment.catalogue[name]).is_servable]


def _environment(settings: Settings) -> ServerEnvironment:
    if settings.triton_env is not None:
        return open_environment(settings.triton_env)
    return ensure_environment(settings.triton_dir / "env")


def _start_ready(
    settings: Settings,
    environment: ServerEnvironment,
    repository: Repository,
    entries: list[CatalogueEntry],
    ports: dict[str, int | None],
) -> server.ServerState:
    """A server all of whose models are ready, or none. Of one that died the end of its log is printed."""
    state: server.ServerState | None = None
    try:
        state = server.start(settings.triton_dir, environment, repository, ports)
        _require_ready(state, entries)
    except TrendFlowError as error:
        if state is not None:
            server.stop(settings.triton_dir, state)
        if "log" in error.detail:
            err.print(error.detail["log"], markup=False, highlight=False)
        raise
    return state


def _keep(current: server.ServerState, wanted: Repository) -> int:
    if current.repository_digest != wanted.digest:
        raise TrendFlowError(
            "config_invalid",
            "A Triton server with other models runs already; end it with 'trendflow triton down' first.",
        )
    _print_addresses(current)
    out.print("it runs already")
    return 0


def _require_ready(state: server.ServerState, entries: list[CatalogueEntry]) -> None:
    session = Session(state.grpc_url, shared_memory=False)
    try:
        for entry in entries:
            session.require(entry)
    finally:
        session.close()


def _models(url: str) -> list[ModelState]:
    session = Session(url, shared_memory=False)
    try:
        return session.models()
    finally:
        session.close()


@contextmanager
def _exclusive(settings: Settings) -> Iterator[None]:
    """Two commands must not start, end and rewrite one server at the same time."""
    settings.triton_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(settings.triton_dir / ".lock")
    try:
        lock.acquire(timeout=_LOCK_TIMEOUT_S)
    except Timeout as exc:
        raise TrendFlowError("config_invalid", "Another command is at work on this Triton server.") from exc
    try:
        yield
    finally:
        lock.release()


def _print_addresses(state: server.ServerState) -> None:
    rows = [
        ["process", str(state.pid)],
        ["gRPC", state.grpc_url],
        ["HTTP", f"{server.HOST}:{state.http_port}"],
        ["metrics", f"http://{server.HOST}:{state.metrics_port}/metrics"],
        ["log", state.log],
    ]
    out.print(table(None, ["server", ""], rows))


def _styled(state: str) -> str:
    return f"[{'green' if state == 'READY' else 'red'}]{state}[/]"
