"""The files that describe the deployment in containers, held against their formats and against the code."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import compose_spec
import kubernetes_validate
import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import ListRepositoriesResponse
from dagster._serdes import deserialize_value

from trendflow.config import Settings, load_settings
from trendflow.fleet.code_servers import LOCATIONS
from trendflow.fleet.environment import DEPLOYMENT_KEYS, write_dagster_home
from trendflow.fleet.files import make_folder
from trendflow.fleet.postgresql import POSTGRESQL
from trendflow.fleet.service import Site
from trendflow.fleet.valkey import VALKEY
from trendflow.service.users import Users
from trendflow_tests.ports import held_ports

REPO = Path(__file__).resolve().parents[2]
DEPLOY = REPO / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
SETTINGS = {f"TRENDFLOW_{field.upper()}" for field in Settings.model_fields} | {"TRENDFLOW_DATABASE_URL"}
PROGRAMS = ("api", "code-training", "code-trendflow", "daemon", "webserver", "worker-cpu", "worker-gpu")
VARIABLE = re.compile(r"\$\{(\w+)(:-|:\?)([^}]*)\}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with generated passwords."""
    made = tmp_path_factory.mktemp("deploy")
    subprocess.run([sys.executable, str(DEPLOY / "new_env.py"), str(made)], check=True, capture_output=True)
    return made


@pytest.fixture(scope="module")
def compose(folder: Path) -> dict[str, Any]:
    """compose.yaml as compose reads it: variables put in, merges done."""
    known = env_of(folder / ".env")

    def value(found: re.Match[str]) -> str:
        name, operator, rest = found.groups()
        assert operator == ":-" or known.get(name), f"{name} is required"
        return known.get(name) or (rest if operator == ":-" else "")

    def filled(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: filled(inside) for name, inside in part.items()}
        if isinstance(part, list):
            return [filled(inside) for inside in part]
        return VARIABLE.sub(value, part) if isinstance(part, str) else part

    return filled(yaml.safe_load((DEPLOY / "compose.yaml").read_text()))


def env_of(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def manifests() -> list[dict[str, Any]]:
    files = sorted(KUBERNETES.glob("*.yaml"))
    return [document for file in files for document in yaml.safe_load_all(file.read_text())]


def containers() -> list[dict[str, Any]]:
    return [
        container
        for manifest in manifests()
        if manifest["kind"] == "Deployment"
        for container in manifest["spec"]["template"]["spec"]["containers"]
    ]


def accepted(document: dict[str, Any]) -> Any:
    parsed = compose_spec.PyOptions(apply_merge=True).from_yaml(yaml.safe_dump(document))
    parsed.validate()
    return parsed


def test_compose_is_what_the_specification_says(compose: dict[str, Any]) -> None:
    accepted(compose)
    services = compose["services"]
    named = {mount.partition(":")[0] for service in services.values() for mount in service.get("volumes", ())}
    assert {name for name in named if not name.startswith((".", "/"))} == set(compose["volumes"])
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= set(services), name
        assert all(mount.startswith("127.0.0.1:") for mount in service.get("ports", ())), name
    wrong = {**services, "api": {**services["api"], "surprise": 1}}
    with pytest.raises(ValueError, match="surprise"):
        accepted({**compose, "services": wrong})


@pytest.mark.skipif(
    shutil.which("docker") is None
    or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0,
    reason="docker compose is not on this machine",
)
def test_docker_accepts_it(folder: Path) -> None:
    command = ["docker", "compose", "-f", str(DEPLOY / "compose.yaml"), "--env-file", str(folder / ".env")]
    subprocess.run([*command, "--profile", "*", "config", "--quiet"], check=True, capture_output=True)


def test_the_programs_get_settings_that_exist(compose: dict[str, Any]) -> None:
    asked = {name for service in compose["services"].values() for name in service.get("environment", ())}
    for container in containers():
        asked |= {variable["name"] for variable in container["env"]} if "env" in container else set()
    asked |= {name for found in manifests() if found["kind"] == "ConfigMap" for name in found["data"]}
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    asked |= set(re.findall(r"TRENDFLOW_\w+", dockerfile))
    ours = {name for name in asked if name.startswith("TRENDFLOW_")}
    assert ours - SETTINGS == set()
    assert {"TRENDFLOW_METRICS_HOST", "TRENDFLOW_LOG_FORMAT"} <= ours
    for name in PROGRAMS:
        assert set(DEPLOYMENT_KEYS) <= set(compose["services"][name]["environment"]), name
    options = compose["services"]["worker-cpu"]["environment"]["TRENDFLOW_STORE_OPTIONS"]
    assert set(json.loads(options)) == {"endpoint", "region", "access_key_id", "secret_access_key"}


def test_what_the_runbook_tells_to_change_reaches_every_program(compose: dict[str, Any], folder: Path) -> None:
    named = set(re.findall(r"TRENDFLOW_[A-Z_]+", (REPO / "docs" / "operations.md").read_text()))
    assert {"TRENDFLOW_MIN_FREE_GB", "TRENDFLOW_YOUTUBE_API_KEY"} <= named <= SETTINGS
    fixed = {"TRENDFLOW_LOG_FORMAT"}  # what reads the containers' logs depends on it
    text = (DEPLOY / "compose.yaml").read_text()
    assert named - fixed <= {name for name, _, _ in VARIABLE.findall(text)} & set(env_of(folder / ".env"))
    for name in PROGRAMS:
        environment = compose["services"][name]["environment"]
        assert named <= set(environment), name
        assert environment["TRENDFLOW_MIN_FREE_GB"] == ""  # not set, for settings
    (given,) = [found["data"] for found in manifests() if found["kind"] == "ConfigMap"]
    secret = set(re.findall(r"^(TRENDFLOW_\w+)=", (DEPLOY / "kubernetes.md").read_text(), re.MULTILINE))
    assert named <= set(given) | secret
    assert not set(given) & secret
    for container in containers():
        assert {"configMapRef": {"name": "trendflow"}} in container["envFrom"], container["name"]
        assert {"secretRef": {"name": "trendflow"}} in container["envFrom"], container["name"]


def test_settings_that_are_empty_are_not_set(compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    (given,) = [found["data"] for found in manifests() if found["kind"] == "ConfigMap"]
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    plain = load_settings()
    for environment in (compose["services"]["worker-cpu"]["environment"], given):
        empty = {name for name, value in environment.items() if value == ""}
        assert len(empty) > 10
        for name in empty:
            monkeypatch.setenv(name, "")
        assert load_settings() == plain


def test_the_broker_is_configured_as_in_the_fleet_and_is_told_to_end(compose: dict[str, Any], tmp_path: Path) -> None:
    broker = compose["services"]["broker"]
    (mount,) = broker["tmpfs"]
    program = tmp_path / "valkey-server"
    program.write_text('#!/bin/sh\necho $$\ncat "$1"\n')
    program.chmod(0o755)
    shell, option, script = broker["command"]
    script = script.replace("$$", "$").replace(mount.partition(":")[0], str(tmp_path))
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "REDISCLI_AUTH": "a password"}
    with subprocess.Popen([shell, option, script], env=environment, stdout=subprocess.PIPE, text=True) as process:
        said = process.communicate()[0].splitlines()
        assert said[0] == str(process.pid)  # the server is the process that signals go to
    site = Site(tmp_path, {"valkey": {"resp": 1}}, {"valkey.password": "a password"})
    valkey = VALKEY.build(site)
    assert valkey.prepare is not None
    make_folder(valkey.folder)
    valkey.prepare()
    fleet = set(Path(valkey.command[-1]).read_text().splitlines())
    assert fleet & set(said[1:]) == {
        "requirepass a password",
        "appendonly yes",
        "appendfsync always",
        "maxmemory-policy noeviction",
        'save ""',
    }
    assert set(said[1:]) - fleet == {"dir /data"}
    assert stat.S_IMODE((tmp_path / "valkey.conf").stat().st_mode) == 0o600


def test_the_database_takes_as_many_connections_as_in_the_fleet(compose: dict[str, Any], tmp_path: Path) -> None:
    site = Site(tmp_path, {"postgresql": {"sql": 1}}, {"postgresql.password": "a password"})
    (option,) = [part for part in POSTGRESQL.build(site).command if part.startswith("--max_connections=")]
    assert compose["services"]["postgres"]["command"] == ["postgres", "-c", option.removeprefix("--")]


def test_a_database_that_is_away_does_not_start_the_daemon_again(tmp_path: Path) -> None:
    (daemon,) = [found for found in containers() if found["name"] == "daemon"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def passes(probe: str, home: Path) -> bool:
        command = daemon[probe]["exec"]["command"]
        done = subprocess.run(command, env={**environment, "DAGSTER_HOME": str(home)}, capture_output=True, check=False)
        return done.returncode == 0

    silent, away = tmp_path / "silent", tmp_path / "away"
    for home in (silent, away):
        home.mkdir()
    assert not passes("livenessProbe", silent)  # its database answers and has no heartbeat
    with held_ports(1) as (port,):
        url = f"postgresql://user:password@127.0.0.1:{port}/dagster"
        (away / "dagster.yaml").write_text(yaml.safe_dump({"storage": {"postgres": {"postgres_url": url}}}))
        assert passes("livenessProbe", away)
        assert not passes("readinessProbe", away)


def test_every_worker_takes_the_command_it_is_given(compose: dict[str, Any]) -> None:
    commands = [service["command"] for name, service in compose["services"].items() if name.startswith("worker")]
    commands += [container["args"] for container in containers() if container["name"] == "worker"]
    assert len(commands) == 4
    for command in {tuple(command) for command in commands}:
        assert command[0] == "python"
        done = subprocess.run(
            [sys.executable, *command[1:]], env={**os.environ}, capture_output=True, text=True, check=False
        )
        assert "TRENDFLOW_BROKER_URL is not set" in done.stderr  # what comes after the arguments


def test_the_image_holds_what_it_copies_and_nothing_secret() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    sent = {line.removeprefix("!") for line in (REPO / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    packed = re.findall(r'^    "(.+)",$', (REPO / "hatch_build.py").read_text(), re.MULTILINE)
    assert "component_graph.yaml" in packed
    own = {"deploy/dagster.yaml", "deploy/workspace.yaml"}
    assert {"hatch_build.py", "pyproject.toml", "trendflow", "training", *own, *packed} <= sent
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE)
    for name in {name for names in copied for name in names.split()} - {"."}:
        assert name in sent
        assert (REPO / name).exists()
    last = dockerfile[dockerfile.rindex("\nUSER ") :]
    assert last.startswith("\nUSER 10001:10001")
    for line in re.findall(r"pip install (.+)", dockerfile):
        assert "--constraint constraints.txt" in line or "--requirement" in line or "==${release}" in line


def test_generated_secrets_are_kept_and_nobody_elses_business(folder: Path, tmp_path: Path) -> None:
    first = (folder / ".env").read_text()
    assert (folder / ".env").stat().st_mode & 0o777 == 0o600
    assert (folder / "secrets").stat().st_mode & 0o777 == 0o700
    token = (folder / "secrets" / "api_token").read_bytes()
    user = Users.load(folder / "secrets" / "api_users.json").of_token(token)
    assert user is not None
    assert user.admin
    (folder / ".env").write_text(first.replace("API_PORT=8300", "API_PORT=9000") + "OWN=1\n")
    subprocess.run([sys.executable, str(DEPLOY / "new_env.py"), str(folder)], check=True, capture_output=True)
    assert (folder / ".env").read_text() == first.replace("API_PORT=8300", "API_PORT=9000") + "OWN=1\n"
    assert (folder / "secrets" / "api_token").read_bytes() == token
    subprocess.run([sys.executable, str(DEPLOY / "new_env.py"), str(tmp_path)], check=True, capture_output=True)
    example, other = env_of(DEPLOY / ".env.example"), env_of(tmp_path / ".env")
    generated = {name for name, value in example.items() if value == "" and other[name]}
    assert all("PASSWORD" in name or "KEY" in name for name in generated)
    assert len({other[name] for name in generated} | {env_of(folder / ".env")[name] for name in generated}) == 2 * len(
        generated
    )


def test_dagster_runs_as_in_the_fleet(tmp_path: Path) -> None:
    shipped = yaml.safe_load((DEPLOY / "dagster.yaml").read_text())
    site = Site(tmp_path / "fleet", {"postgresql": {"sql": 1}}, {})
    write_dagster_home(site)
    fleet = yaml.safe_load((tmp_path / "fleet" / "dagster" / "dagster.yaml").read_text())
    assert {name: value for name, value in shipped.items() if name != "compute_logs"} == fleet
    (tmp_path / "dagster.yaml").write_text((DEPLOY / "dagster.yaml").read_text())
    config, _ = dagster_instance_config(str(tmp_path))
    assert config["run_launcher"]["class"] == "QueueRunLauncher"


@pytest.mark.parametrize(
    "manifest", [found for found in manifests() if found["kind"] != "Kustomization"], ids=lambda found: found["kind"]
)
def test_manifests_follow_the_schemas_of_kubernetes(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_a_manifest_with_a_mistake_is_refused() -> None:
    (found,) = [found for found in manifests() if found.get("metadata", {}).get("name") == "daemon"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            {**found, "spec": {**found["spec"], "replica": 1}}, kubernetes_validate.latest_version(), strict=True
        )


def test_manifests_fit_together() -> None:
    (kustomization,) = [found for found in manifests() if found["kind"] == "Kustomization"]
    files = {file.name for file in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == files - {"worker-gpu.yaml"}
    images = {image["name"]: image for image in kustomization["images"]}
    assert {container["image"] for container in containers()} == set(images)
    pushed = set(re.findall(r"docker build .*-t (\S+)", (DEPLOY / "kubernetes.md").read_text()))
    assert {f"{image['newName']}:{image['newTag']}" for image in images.values()} == pushed
    for found in manifests():
        if found["kind"] == "Deployment":
            labels, spec = found["spec"]["template"]["metadata"]["labels"], found["spec"]["template"]["spec"]
            assert found["spec"]["selector"]["matchLabels"].items() <= labels.items()
            assert spec["securityContext"]["runAsNonRoot"] is True
            mounts = {mount["name"] for part in spec["containers"] for mount in part.get("volumeMounts", ())}
            assert mounts == {volume["name"] for volume in spec.get("volumes", ())}
        if found["kind"] in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
            spec = found["spec"]
            wanted = spec.get("podSelector", spec.get("selector"))
            wanted = wanted.get("matchLabels", wanted)
            assert any(
                wanted.items() <= other["spec"]["template"]["metadata"]["labels"].items()
                for other in manifests()
                if other["kind"] == "Deployment"
            )
    single = [found for found in manifests() if found["kind"] == "Deployment" and found["spec"]["replicas"] == 1]
    strategies = {found["metadata"]["name"]: found["spec"].get("strategy") for found in single}
    assert {name for name, found in strategies.items() if found == {"type": "Recreate"}} == {"api", "code", "daemon"}


def test_code_servers_are_where_the_workspace_says(compose: dict[str, Any]) -> None:
    entries = [entry["grpc_server"] for entry in yaml.safe_load((DEPLOY / "workspace.yaml").read_text())["load_from"]]
    named = {found["metadata"]["name"]: found for found in manifests() if found["kind"] == "Service"}
    args = {container["name"]: container for container in containers()}
    assert [entry["location_name"] for entry in entries] == list(LOCATIONS)
    for entry in entries:
        host, location = entry["host"], entry["location_name"]
        command = compose["services"][host]["command"]
        assert command[command.index("-p") + 1] == str(entry["port"]) == compose["services"][host]["expose"][0]
        assert compose["services"][host]["healthcheck"]["test"][-1] == str(entry["port"])
        assert command[command.index("-m") + 1] == LOCATIONS[location]
        assert command[command.index("--location-name") + 1] == location
        (mapped,) = named[host]["spec"]["ports"]
        (own,) = args[host]["ports"]
        assert (mapped["port"], mapped["targetPort"]) == (entry["port"], own["name"])
        there = [str(own["containerPort"]) if part == str(entry["port"]) else part for part in command]
        assert args[host]["args"] == there
        assert args[host]["livenessProbe"]["grpc"]["port"] == own["containerPort"]
    (policy,) = [
        found for found in manifests() if found["kind"] == "NetworkPolicy" and found["metadata"]["name"] == "code"
    ]
    (rule,) = policy["spec"]["ingress"]
    reached = {port["port"] for port in rule["ports"]}
    assert reached == {
        port["containerPort"] for found in args.values() if "code" in found["name"] for port in found["ports"]
    }
    callers = {peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in rule["from"]}
    assert callers == {"webserver", "daemon"}
    for program in callers:
        assert {entry["host"] for entry in entries} <= set(compose["services"][program]["depends_on"])
    assert "COPY deploy/workspace.yaml /etc/trendflow/workspace.yaml" in (DEPLOY / "Dockerfile").read_text()


def test_nobody_but_daemon_and_web_server_shares_a_network_with_the_code_servers(compose: dict[str, Any]) -> None:
    networks = {name: set(service.get("networks", ("default",))) for name, service in compose["services"].items()}
    code = {"code-trendflow", "code-training"}
    reached = set.union(*(networks[name] for name in code))
    callers = {name for name, found in networks.items() if found & reached} - code
    assert callers == {"webserver", "daemon", "postgres", "broker", "minio"}
    assert networks["postgres"] >= reached | networks["worker-cpu"]
    assert reached | {"default"} == set(compose["networks"])


def test_the_code_server_of_the_containers_starts_and_passes_its_check(compose: dict[str, Any], tmp_path: Path) -> None:
    found = compose["services"]["code-training"]
    environment = {**os.environ, "TRENDFLOW_HOME": str(tmp_path), "DAGSTER_HOME": str(tmp_path)}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with held_ports(1) as (port,):
        own = {"4000": str(port), "0.0.0.0": "127.0.0.1"}
        command, check = (
            [own.get(part, part) for part in parts] for parts in (found["command"], found["healthcheck"]["test"][1:])
        )
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            while subprocess.run(check, env=environment, capture_output=True, check=False).returncode != 0:
                assert server.poll() is None
            answer = deserialize_value(DagsterGrpcClient(port=port).list_repositories(), ListRepositoriesResponse)
            assert list(answer.repository_code_pointer_dict) == ["__repository__"]
            server.terminate()
        assert server.returncode == 0
