"""What deploy/ and .github/ say, to those who read them: Kubernetes, GitHub, the linters.

No cluster and no runner of GitHub's is here; the schemas and actionlint know what they would
refuse.
"""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.build import core
from tools.build.images import PLATFORMS, static_files
from tools.lab.programs import CACHE

yaml = pytest.importorskip("yaml", reason="needs PyYAML, of kubernetes-validate")

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def documents(path: Path) -> list[dict[str, Any]]:
    return [found for found in yaml.safe_load_all(path.read_text()) if found]


def templates() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in MANIFESTS:
        for document in documents(path):
            yield path.name, document["spec"]["template"]["spec"]


def tunnels() -> Iterator[tuple[str, dict[str, Any]]]:
    """The containers with our images."""
    for name, pod in templates():
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            if re.search(r"/pywgd?:", container["image"]):
                yield name, container


# ---- Kubernetes


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_kubernetes_takes_the_manifests(path: Path) -> None:
    check = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for document in documents(path):
        check.validate(document, check.latest_version(), strict=True)
        broken = copy.deepcopy(document)
        broken["spec"]["template"]["spec"]["securitycontext"] = {}
        with pytest.raises(check.ValidationError):
            check.validate(broken, check.latest_version(), strict=True)


def test_each_tunnel_has_one_capability_and_is_asked_how_it_is() -> None:
    found = list(tunnels())
    assert {name for name, _ in found} == {"gateway.yaml", "sidecar.yaml"}
    for _, container in found:
        context = container["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN"]}
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert "privileged" not in context
        assert "healthcheck" in container["readinessProbe"]["exec"]["command"]
        assert "livenessProbe" not in container
        assert container["image"].endswith(f":{core.version()}")


def test_no_pod_has_a_token_or_a_key_that_others_may_read() -> None:
    for _, pod in templates():
        assert pod["automountServiceAccountToken"] is False
        (secret,) = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
        assert secret["defaultMode"] == 0o400
    assert all(document["kind"] != "Secret" for path in MANIFESTS for document in documents(path))


# ---- GitHub


def actionlint() -> str:
    found = shutil.which("actionlint", path=str(CACHE)) or shutil.which("actionlint")
    if found is None:
        pytest.skip("no actionlint: scripts/peers installs it where go is")
    return found


def test_github_takes_the_workflows(tmp_path: Path) -> None:
    done = subprocess.run(
        [actionlint(), *map(str, WORKFLOWS)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout
    broken = tmp_path / "broken.yml"
    broken.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "runs-at:"))
    assert subprocess.run([actionlint(), broken], capture_output=True, check=False).returncode == 1


def test_actions_are_pinned_by_hash_and_say_their_version() -> None:
    used = [
        line.partition("uses:")[2].strip()
        for path in WORKFLOWS
        for line in path.read_text().splitlines()
        if "uses:" in line
    ]
    assert len(used) > 10
    for line in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+|\./\.github/\S+", line), line


def test_each_workflow_has_only_the_rights_that_it_needs() -> None:
    wider = {}
    for path in WORKFLOWS:
        workflow = documents(path)[0]
        assert workflow["permissions"] == {"contents": "read"}
        for name, job in workflow["jobs"].items():
            if job.get("permissions", workflow["permissions"]) != workflow["permissions"]:
                wider[path.name, name] = set(job["permissions"])
    assert wider == {
        ("release.yml", "pypi"): {"id-token"},
        ("release.yml", "github"): {"contents", "id-token", "attestations"},
        ("release.yml", "images"): {"packages"},
    }


def test_the_scripts_that_workflows_call_are_there() -> None:
    text = "".join(path.read_text() for path in WORKFLOWS)
    called = set(re.findall(r"scripts/[\w-]+", text))
    assert called >= {"scripts/test", "scripts/build-images"}
    assert {name for name in called if not (ROOT / name).is_file()} == set()


def test_yaml_is_written_in_one_way() -> None:
    if shutil.which("yamllint") is None:
        pytest.fail("no yamllint: run scripts/peers")
    done = subprocess.run(
        ["yamllint", "--strict", ".github", "deploy"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout


# ---- images


def test_each_static_file_has_its_platform(tmp_path: Path) -> None:
    for machine in ("x86_64", "mipsel", "unheard-of"):
        (tmp_path / f"pywgd-{core.version()}-linux-{machine}").touch()
    (tmp_path / "pywgd-0.0.9-linux-aarch64").touch()
    assert set(static_files(tmp_path)) == {"linux/amd64", "linux/mipsle"}
    assert set(core.TARGETS) <= set(PLATFORMS)
    assert all(name.startswith("linux/") for name in PLATFORMS.values())
