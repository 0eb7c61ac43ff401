"""The manifests: that the API server would accept them, and what it cannot see: that they fit."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from asheard import __version__
from gateway.config import GatewayConfig
from session.agent import parse_agent
from session.config import SessionConfig
from tests.deploy.kustomize_subset import Manifest, is_workload, pod_spec, render
from tests.deploy.settings import ENOUGH, read_by
from transcript.config import TranscriptConfig

ROOT = Path(__file__).parents[2]
K8S = ROOT / "deploy" / "k8s"
RENDERED = {name: render(K8S / name) for name in ("base", "overlays/example")}
BASE = RENDERED["base"]

OLDEST, NEWEST = "1.30", kubernetes_validate.latest_version()
"""docs/operations.md promises 1.30 and newer: a preStop of `sleep` is on by default since then."""

SERVICES: Mapping[str, Any] = {
    "gateway": GatewayConfig,
    "session": SessionConfig,
    "transcript": TranscriptConfig,
}


def name_of(manifest: Manifest) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def manifest(wanted: str) -> Manifest:
    found = [candidate for candidate in BASE if name_of(candidate) == wanted]
    assert len(found) == 1, f"{len(found)} manifests are {wanted}"
    return found[0]


def workload(service: str) -> Manifest:
    kind = "StatefulSet" if service == "transcript" else "Deployment"
    return manifest(f"{kind}/asheard-{service}")


def container(service: str) -> Manifest:
    containers: list[Manifest] = pod_spec(workload(service))["containers"]
    assert len(containers) == 1
    return containers[0]


def container_port(service: str, name_or_number: str | int) -> int:
    """The number of a container's port, which must be declared."""
    ports = {port["name"]: port["containerPort"] for port in container(service)["ports"]}
    number = ports.get(name_or_number, name_or_number)
    assert number in ports.values(), f"{service} declares no port {name_or_number}: {ports}"
    assert isinstance(number, int)
    return number


def pod_environment(service: str) -> dict[str, str]:
    """What the process of a pod sees, with a stand-in for each secret."""
    environment: dict[str, str] = {}
    for source in container(service)["envFrom"]:
        environment |= manifest(f"ConfigMap/{source['configMapRef']['name']}")["data"]
    for variable in container(service)["env"]:
        assert set(variable["valueFrom"]["secretKeyRef"]) == {"name", "key"}
        environment[variable["name"]] = "from-a-secret"
    return environment


def config(service: str) -> Any:
    """The configuration that the service reads from its pod's environment."""
    return SERVICES[service].from_env(pod_environment(service))


def mounted(service: str, directory: Path) -> Manifest:
    """The volume that is mounted, read-only, at a directory."""
    [mount] = [m for m in container(service)["volumeMounts"] if m["mountPath"] == str(directory)]
    assert mount["readOnly"] is True
    assert "subPath" not in mount
    [volume] = [v for v in pod_spec(workload(service))["volumes"] if v["name"] == mount["name"]]
    found: Manifest = volume
    return found


def selected(labels: Mapping[str, str]) -> list[str]:
    """The services whose pods bear these labels."""
    return [
        service
        for service in SERVICES
        if labels.items() <= workload(service)["spec"]["template"]["metadata"]["labels"].items()
    ]


# What the API server would say


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize(
    "document",
    [
        pytest.param(document, id=f"{directory}-{name_of(document)}")
        for directory, documents in RENDERED.items()
        for document in documents
    ],
)
def test_each_manifest_is_valid_for_kubernetes(document: Manifest, version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def test_the_validation_sees_a_misspelt_field() -> None:
    document = deepcopy(workload("gateway"))
    pod_spec(document)["terminationGracePeriod"] = 60
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, NEWEST, strict=True)


def test_no_two_manifests_are_of_one_name_and_no_file_is_left_out() -> None:
    for documents in RENDERED.values():
        names = [name_of(document) for document in documents]
        assert len(names) == len(set(names))
    files = {path for path in K8S.rglob("*.yaml") if path.name != "kustomization.yaml"}
    documents_in_files = sum(len(list(yaml.safe_load_all(path.read_text()))) for path in files)
    assert len(RENDERED["overlays/example"]) == documents_in_files


@pytest.mark.system
@pytest.mark.parametrize("directory", RENDERED)
def test_kustomize_itself_renders_the_same(directory: str) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl here; Debian's is of a kustomize too old for `patches`")
    versions = json.loads(
        subprocess.run(
            [kubectl, "version", "--client", "--output=json"],
            check=True, capture_output=True, text=True, timeout=30,
        ).stdout
    )  # fmt: skip
    if not str(versions.get("kustomizeVersion", "")).startswith("v5."):
        pytest.skip("this kubectl's kustomize is not of version 5")
    printed = subprocess.run(
        [kubectl, "kustomize", str(K8S / directory)],
        check=True, capture_output=True, text=True, timeout=30,
    ).stdout  # fmt: skip
    theirs = {name_of(document): document for document in yaml.safe_load_all(printed)}
    assert theirs == {name_of(document): document for document in RENDERED[directory]}


# What it could not see


@pytest.mark.parametrize("service", SERVICES)
def test_a_pod_has_a_configuration_that_its_service_accepts(service: str) -> None:
    settings = config(service)
    assert container(service)["args"] == [service]
    assert container_port(service, "admin") == settings.admin.port
    listening = "public" if service == "gateway" else "grpc"
    assert container_port(service, listening) == settings.listen.port
    if service == "transcript":
        assert container_port(service, "ingest") == settings.ingest.port


def test_every_setting_is_one_that_is_read() -> None:
    read = set().union(*(read_by(config) for config in ENOUGH))
    assert set(manifest("ConfigMap/asheard-settings")["data"]) <= read


@pytest.mark.parametrize("service", SERVICES)
def test_a_pod_gets_no_secret_that_its_service_does_not_read(service: str) -> None:
    baseline = config(service)
    for variable in container(service)["env"]:
        changed = pod_environment(service) | {variable["name"]: "another"}
        assert SERVICES[service].from_env(changed) != baseline, variable["name"]


def test_secrets_are_named_but_not_committed() -> None:
    assert not [name_of(document) for document in BASE if document["kind"] == "Secret"]
    page = (ROOT / "docs" / "operations.md").read_text()
    for service in SERVICES:
        for variable in container(service)["env"]:
            reference = variable["valueFrom"]["secretKeyRef"]
            assert f"secret generic {reference['name']}" in page
            assert f"--from-literal={reference['key']}=" in page


@pytest.mark.parametrize("service", SERVICES)
def test_probes_ask_the_admin_port_and_liveness_asks_nothing_of_others(service: str) -> None:
    settings = config(service)
    probes = {
        "startupProbe": "/livez",
        "readinessProbe": "/readyz",
        "livenessProbe": "/livez",  # which says that the event loop turns, and nothing else
    }
    for probe, path in probes.items():
        question = container(service)[probe]["httpGet"]
        assert question["path"] == path
        assert container_port(service, question["port"]) == settings.admin.port


@pytest.mark.parametrize("service", ["gateway", "session"])
def test_a_pod_may_drain_to_the_end_before_it_is_killed(service: str) -> None:
    pause = container(service).get("lifecycle", {}).get("preStop", {"sleep": {"seconds": 0}})
    drain_s = pause["sleep"]["seconds"] + config(service).drain_s
    flush_s = 60
    assert pod_spec(workload(service))["terminationGracePeriodSeconds"] >= drain_s + flush_s
    rollout = workload(service)["spec"]["strategy"]["rollingUpdate"]
    assert rollout["maxUnavailable"] == 0
    assert rollout["maxSurge"] > 0


def test_sqlite_has_one_pod_at_most_and_lies_on_its_volume() -> None:
    stateful = workload("transcript")
    store = config("transcript").store
    assert store.startswith("sqlite:///")
    assert stateful["kind"] == "StatefulSet"
    assert stateful["spec"]["replicas"] == 1
    claims = {claim["metadata"]["name"] for claim in stateful["spec"]["volumeClaimTemplates"]}
    mounts = {
        mount["mountPath"]: mount["name"] for mount in container("transcript")["volumeMounts"]
    }
    directory = PurePosixPath(store.removeprefix("sqlite:///")).parent
    assert mounts[str(directory)] in claims


def test_the_agent_file_is_mounted_where_the_workers_look_and_is_valid() -> None:
    path = config("session").agent_path
    volume = mounted("session", path.parent)
    files = manifest(f"ConfigMap/{volume['configMap']['name']}")["data"]
    agent = parse_agent(files[path.name], name=path.name)
    assert agent.greeting


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_the_secret_that_it_proves_itself_by(service: str) -> None:
    """As a file, and the directory as a whole: a `subPath` would never change with the Secret."""
    path = config(service).trust.secret_file
    volume = mounted(service, path.parent)
    assert volume["secret"]["secretName"] == "asheard-internal"
    security = pod_spec(workload(service))["securityContext"]
    assert security["fsGroup"] == security["runAsGroup"], "else it could not read it"
    assert volume["secret"]["defaultMode"] == 0o440
    page = (ROOT / "docs" / "operations.md").read_text()
    assert f"secret generic asheard-internal --from-literal={path.name}=" in page
    # What a CRM's pod may be given is another thing.
    assert "asheard-internal" not in str(container(service)["env"])


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_leads_to_ports_of_its_own_pods(service: str) -> None:
    spec = manifest(f"Service/asheard-{service}")["spec"]
    assert selected(spec["selector"]) == [service]
    assert workload(service)["spec"]["selector"]["matchLabels"] == spec["selector"]
    for port in spec["ports"]:
        container_port(service, port["targetPort"])


def test_the_services_find_each_other() -> None:
    [target] = config("gateway").session_targets
    name, _, port = target.removeprefix("dns:///").rpartition(":")
    workers = manifest(f"Service/{name}")
    assert selected(workers["spec"]["selector"]) == ["session"]
    assert workers["spec"]["clusterIP"] == "None", "a gateway must see every worker"
    # A headless Service maps no ports: what is called is the container's own.
    assert int(port) == config("session").listen.port

    for writer in ("gateway", "session"):
        name, _, port = config(writer).ingest_target.rpartition(":")
        [called] = [
            p for p in manifest(f"Service/{name}")["spec"]["ports"] if p["port"] == int(port)
        ]
        listening = container_port("transcript", called["targetPort"])
        assert listening == config("transcript").ingest.port
    assert workload("transcript")["spec"]["serviceName"] == name


@pytest.mark.parametrize("directory", RENDERED)
def test_the_ingress_serves_the_public_url_and_nothing_but_twilio(directory: str) -> None:
    by_name = {name_of(document): document for document in RENDERED[directory]}
    ingress = by_name["Ingress/asheard-gateway"]["spec"]
    url = by_name["ConfigMap/asheard-settings"]["data"]["ASHEARD_PUBLIC_URL"]
    [rule] = ingress["rules"]
    [path] = rule["http"]["paths"]
    assert url == f"https://{rule['host']}"
    assert ingress["tls"][0]["hosts"] == [urlsplit(url).hostname]
    assert path["path"] == "/twilio"
    backend = path["backend"]["service"]
    service = by_name[f"Service/{backend['name']}"]["spec"]
    assert backend["port"]["name"] in {port["name"] for port in service["ports"]}


@pytest.mark.parametrize("service", SERVICES)
def test_pods_have_no_rights_that_they_do_not_need(service: str) -> None:
    spec = pod_spec(workload(service))
    assert spec["automountServiceAccountToken"] is False
    account = manifest(f"ServiceAccount/{spec['serviceAccountName']}")
    assert account["automountServiceAccountToken"] is False
    assert account["metadata"]["name"] == f"asheard-{service}"
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(service)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    resources = container(service)["resources"]
    assert set(resources["requests"]) == {"cpu", "memory"}
    assert set(resources["limits"]) == {"memory"}, "a CPU limit throttles, and that is heard"


def edges(direction: str) -> Iterator[tuple[str, str, int]]:
    """(from, to, port) of what the network policies allow between our own pods."""
    for service in SERVICES:
        policy = manifest(f"NetworkPolicy/asheard-{service}")["spec"]
        assert selected(policy["podSelector"]["matchLabels"]) == [service]
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        peers_key = "from" if direction == "ingress" else "to"
        for rule in policy[direction]:
            for peer in rule.get(peers_key, []):
                if "namespaceSelector" in peer:
                    continue
                [other] = selected(peer["podSelector"]["matchLabels"])
                for port in rule["ports"]:
                    if direction == "ingress":
                        yield other, service, container_port(service, port["port"])
                    else:
                        yield service, other, container_port(other, port["port"])


def test_the_network_policies_allow_what_the_services_call_and_both_ends_agree() -> None:
    session, ingest = config("session").listen.port, config("transcript").ingest.port
    called = {
        ("gateway", "session", session),
        ("gateway", "transcript", ingest),
        ("session", "transcript", ingest),
    }
    assert set(edges("ingress")) == called
    assert set(edges("egress")) == called


def test_readers_reach_the_port_for_reading_and_no_other() -> None:
    policy = manifest("NetworkPolicy/asheard-transcript")["spec"]
    for rule in policy["ingress"]:
        labels = [peer.get("podSelector", {}).get("matchLabels", {}) for peer in rule["from"]]
        ports = [port["port"] for port in rule["ports"]]
        for_readers = ports == [config("transcript").listen.port]
        assert for_readers == any("asheard-transcript-reader" in label for label in labels)


@pytest.mark.parametrize("service", SERVICES)
def test_monitoring_may_scrape(service: str) -> None:
    policy = manifest(f"NetworkPolicy/asheard-{service}")["spec"]
    open_to_monitoring = [
        port["port"]
        for rule in policy["ingress"]
        for peer in rule["from"]
        if "monitoring" in peer.get("namespaceSelector", {}).get("matchLabels", {}).values()
        for port in rule["ports"]
    ]
    assert open_to_monitoring == [config(service).admin.port]


def test_the_image_is_of_this_version() -> None:
    for documents in RENDERED.values():
        for document in filter(is_workload, documents):
            image = pod_spec(document)["containers"][0]["image"]
            assert image.endswith(f"asheard:{__version__}")
