"""Renders the part of kustomize that deploy/k8s uses, and refuses all else.

kustomize is not in PyPI or Debian, so a test cannot count on it. What this does is held against the
real one, wherever a `kubectl` brings it along, by ``test_kubernetes.py``.

Of a kustomization: ``resources``, ``namespace``, ``images``, and ``patches`` made of ``replace``
operations.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

_KNOWN = {"apiVersion", "kind", "resources", "namespace", "images", "patches"}


def render(directory: Path) -> list[Manifest]:
    """What ``kubectl kustomize DIRECTORY`` prints, in the order in which it is listed."""
    kustomization = yaml.safe_load((directory / "kustomization.yaml").read_text())
    unknown = set(kustomization) - _KNOWN
    if unknown:
        raise NotImplementedError(f"{directory}: this renderer does not know {sorted(unknown)}")
    manifests: list[Manifest] = []
    for resource in kustomization["resources"]:
        path = directory / resource
        if path.is_dir():
            manifests += render(path)
        else:
            # A copy of each, because YAML anchors make two places share one object.
            manifests += [_unshared(document) for document in yaml.safe_load_all(path.read_text())]
    for patch in kustomization.get("patches", []):
        _patch(manifests, patch)
    for image in kustomization.get("images", []):
        _set_image(manifests, image)
    namespace = kustomization.get("namespace")
    for manifest in manifests if namespace else []:
        if manifest["kind"] == "Namespace":
            manifest["metadata"]["name"] = namespace
        else:
            manifest["metadata"]["namespace"] = namespace
    return manifests


def pod_spec(workload: Manifest) -> Manifest:
    """The pod spec of a Deployment or StatefulSet."""
    spec: Manifest = workload["spec"]["template"]["spec"]
    return spec


def is_workload(manifest: Manifest) -> bool:
    """Whether pods come of it."""
    return manifest["kind"] in ("Deployment", "StatefulSet")


def _unshared(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_unshared(inner) for inner in value]
    return deepcopy(value)


def _patch(manifests: list[Manifest], patch: Manifest) -> None:
    target = patch["target"]
    matches = [
        manifest
        for manifest in manifests
        if (manifest["kind"], manifest["metadata"]["name"]) == (target["kind"], target["name"])
    ]
    if len(matches) != 1:
        raise ValueError(f"a patch of {target} finds {len(matches)} manifests")
    for operation in yaml.safe_load(patch["patch"]):
        if operation["op"] != "replace":
            raise NotImplementedError(f"this renderer does not know op {operation['op']!r}")
        *parents, last = [_step(step) for step in operation["path"].split("/")[1:]]
        place: Any = matches[0]
        for step in parents:
            place = place[step]
        place[last]  # A replacement of what is not there is an error.
        place[last] = operation["value"]


def _step(step: str) -> str | int:
    return int(step) if step.isdigit() else step.replace("~1", "/").replace("~0", "~")


def _set_image(manifests: list[Manifest], image: Manifest) -> None:
    for workload in filter(is_workload, manifests):
        for container in pod_spec(workload)["containers"]:
            name, _, tag = container["image"].partition(":")
            if name == image["name"]:
                tag = str(image.get("newTag", tag))
                container["image"] = f"{image.get('newName', name)}:{tag}"
