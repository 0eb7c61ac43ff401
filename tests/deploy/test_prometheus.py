"""The scrape configurations: every service is scraped, once, and under the name of its job."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.system import plan
from gateway.config import GatewayConfig
from tests.deploy.kustomize_subset import is_workload, render
from transcript.config import TranscriptConfig

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVICES = ("gateway", "session", "transcript")


def scrape_configs(name: str) -> list[dict[str, Any]]:
    configuration: dict[str, list[dict[str, Any]]] = yaml.safe_load(
        (DEPLOY / "monitoring" / name).read_text()
    )
    return configuration["scrape_configs"]


def discovered() -> list[dict[str, str]]:
    """What Prometheus' discovery says of the base's pods: one set of labels a container port."""
    targets = []
    for workload in filter(is_workload, render(DEPLOY / "k8s" / "base")):
        template = workload["spec"]["template"]
        labels = {
            "__meta_kubernetes_pod_label_" + re.sub(r"[^a-zA-Z0-9_]", "_", name): value
            for name, value in template["metadata"]["labels"].items()
        }
        for container in template["spec"]["containers"]:
            for port in container["ports"]:
                targets.append(
                    labels
                    | {
                        "job": "asheard",
                        "__meta_kubernetes_namespace": "asheard",
                        "__meta_kubernetes_pod_name": f"{workload['metadata']['name']}-0",
                        "__meta_kubernetes_pod_container_port_name": port["name"],
                        "__address__": f"10.0.0.1:{port['containerPort']}",
                    }
                )
    return targets


def relabelled(labels: dict[str, str], rules: list[dict[str, Any]]) -> dict[str, str] | None:
    """A target after Prometheus' rules; None when it is dropped. Only `keep` and `replace`."""
    for rule in rules:
        value = ";".join(labels.get(label, "") for label in rule["source_labels"])
        match = re.fullmatch(rule.get("regex", "(.*)"), value)
        action = rule.get("action", "replace")
        assert action in ("keep", "replace")
        if action == "keep" and not match:
            return None
        if action == "replace" and match:
            template = rule.get("replacement", "$1").replace("$1", r"\1")
            labels = labels | {rule["target_label"]: match.expand(template)}
    return labels


def test_one_machine_is_scraped_at_the_ports_that_up_listens_at() -> None:
    scraped = {
        job["job_name"]: {target for part in job["static_configs"] for target in part["targets"]}
        for job in scrape_configs("prometheus.yml")
    }
    gateway = GatewayConfig.from_env({"ASHEARD_TWILIO_VALIDATE": "off"})
    assert scraped["asheard-gateway"] == {f"127.0.0.1:{gateway.admin.port}"}
    assert scraped["asheard-transcript"] == {
        f"127.0.0.1:{TranscriptConfig.from_env({}).admin.port}"
    }
    workers = {
        program.environment["ASHEARD_SESSION_ADMIN"].replace("0.0.0.0", "127.0.0.1")
        for program in plan({}, sessions=2)
        if program.arguments == ("session",)
    }
    assert scraped["asheard-session"] == workers


def test_in_a_cluster_each_pod_is_scraped_once_at_its_admin_port() -> None:
    [job] = scrape_configs("prometheus-kubernetes.yml")
    [discovery] = job["kubernetes_sd_configs"]
    assert discovery["role"] == "pod"
    targets = [relabelled(target, job["relabel_configs"]) for target in discovered()]
    kept = [target for target in targets if target is not None]
    assert {(target["job"], target["instance"]) for target in kept} == {
        (f"asheard-{service}", f"asheard-{service}-0") for service in SERVICES
    }
    assert len(kept) == len(SERVICES)
    assert {target["__address__"] for target in kept} == {
        "10.0.0.1:9101",
        "10.0.0.1:9102",
        "10.0.0.1:9103",
    }


def test_discovery_asks_for_pods_that_bear_our_label() -> None:
    [job] = scrape_configs("prometheus-kubernetes.yml")
    [selector] = job["kubernetes_sd_configs"][0]["selectors"]
    name, _, value = selector["label"].partition("=")
    for workload in filter(is_workload, render(DEPLOY / "k8s" / "base")):
        assert workload["spec"]["template"]["metadata"]["labels"][name] == value


@pytest.mark.system
@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus-kubernetes.yml"])
def test_prometheus_accepts_it(name: str, tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here: install Debian's package prometheus, as .ci/run does")
    configuration = yaml.safe_load((DEPLOY / "monitoring" / name).read_text())
    for job in configuration["scrape_configs"]:
        # Debian builds its promtool without Kubernetes. So this part alone goes unchecked.
        if job.pop("kubernetes_sd_configs", None):
            job["static_configs"] = [{"targets": ["127.0.0.1:9101"]}]
    file = tmp_path / name
    file.write_text(yaml.safe_dump(configuration))
    result = subprocess.run(
        [promtool, "check", "config", str(file)], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stdout + result.stderr
