"""The image `pywgd`, and the commands of docs/containers.md as they stand there.

    container east                              container west
    192.0.2.1 ============== a cable ============== 192.0.2.2
    10.8.0.1  - - - - - - -  (the tunnel) - - - - -  10.8.0.2

Of an ordinary user: both have a network of their own behind slirp4netns, and meet at the loopback
of a host of his.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tools.build import core
from tools.lab import ordinary
from tools.lab.containers import Engine, Inside, children, engine, last_line, zombies
from tools.lab.keys import new_key
from tools.lab.namespaces import Namespace, cable
from tools.lab.programs import REPOSITORY, Missing, Program
from tools.lab.traffic import exchange, ping
from tools.lab.waiting import wait_until

yaml = pytest.importorskip("yaml", reason="needs PyYAML, of kubernetes-validate")
pytestmark = pytest.mark.pywgd_only

PAGE = (REPOSITORY / "docs" / "containers.md").read_text()
IMAGE = f"localhost/pywgd:{core.version()}"
NET_ADMIN = 1 << 12
BASE = os.environ.get("PYWG_IMAGE_BASE")
SIDES = ("east", "west")


def blocks(heading: str, language: str) -> list[str]:
    text = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@dataclass
class End:
    """A container, which the page calls `tunnel`."""

    engine: Engine
    name: str
    address: str
    network: str

    def sh(self, text: str) -> str:
        """Commands of the page."""
        text = text.replace("tunnel-conf", f"{self.name}-conf")
        text = re.sub(r"\btunnel\b", self.name, text).replace("wg0.conf\n", f"{self.name}.conf\n")
        return self.engine.run("sh", "-euc", text, network=self.network)

    @property
    def namespace(self) -> Namespace:
        return Inside(self.engine.pid(self.name))

    def does(self, *argv: str) -> bool:
        return self.engine.attempt("podman", "exec", self.name, *argv).returncode == 0

    def is_healthy(self) -> bool:
        return self.engine.attempt("podman", "healthcheck", "run", self.name).returncode == 0

    def process(self) -> dict[str, str]:
        text = Path(f"/proc/{self.engine.pid(self.name)}/status").read_text()
        return dict(re.findall(r"^(\w+):\t(.*)$", text, re.MULTILINE))


def configure(ends: list[End], endpoints: list[str]) -> None:
    """The file of the page, for both."""
    (text,) = blocks("A tunnel in a container", "ini")
    keys = [new_key(), new_key()]
    for end, own, other, peer, endpoint in zip(
        ends, keys, reversed(keys), reversed(ends), endpoints, strict=True
    ):
        filled = text
        for word, value in {
            "PRIVATE_KEY": own.private,
            "PEER_PUBLIC_KEY": other.public,
            "PEER_ADDRESS:51820": endpoint,
            "PEER_INNER_ADDRESS": peer.address,
            "INNER_ADDRESS": end.address,
        }.items():
            filled = re.sub(rf"\b{word}\b", value, filled)
        path = end.engine.folder / f"{end.name}.conf"
        path.touch(0o600)
        path.write_text(filled)
        os.chown(path, end.engine.uid, end.engine.uid)


@pytest.fixture(scope="module")
def static(subject: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As scripts/build-static leaves it; the second machine's is only looked at."""
    folder = tmp_path_factory.mktemp("static")
    machine = platform.machine()
    for name in {machine, "riscv64", "armv6"}:
        shutil.copy(subject.path, folder / f"pywgd-{core.version()}-linux-{name}")
    return folder


@pytest.fixture(scope="module")
def host() -> Iterator[Namespace]:
    made = Namespace("h")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def podman(host: Namespace, static: Path) -> Iterator[Engine]:
    with opened(host) as made:
        made.build("pywgd", "--static", str(static), "--out", str(made.folder / "images"))
        yield ready(made)


@pytest.fixture(scope="module")
def podman_of_a_user(host: Namespace, podman: Engine) -> Iterator[Engine]:
    with opened(host, ordinary.UID) as made:
        # Some machines refuse user namespaces to ordinary users.
        if (done := made.attempt("podman", "info")).returncode != 0:
            pytest.skip(f"podman serves no ordinary user here: {last_line(done.stderr)}")
        place = podman.folder / "images" / f"pywgd-{core.version()}"
        found = made.run("podman", "pull", f"dir:{place}").split()[-1]
        made.run("podman", "tag", found, IMAGE)
        yield ready(made)


@contextlib.contextmanager
def opened(host: Namespace, uid: int = 0) -> Iterator[Engine]:
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(engine(host, uid))
        except Missing as missing:
            pytest.skip(str(missing))
        yield made


def ready(made: Engine) -> Engine:
    try:
        made.check(IMAGE)
    except Missing as missing:
        pytest.skip(str(missing))
    return made


@pytest.fixture
def cabled() -> Iterator[tuple[Namespace, Namespace]]:
    pair = (Namespace("e"), Namespace("w"))
    try:
        cable((pair[0], "veth", ["192.0.2.1/24"]), (pair[1], "veth", ["192.0.2.2/24"]))
        yield pair
    finally:
        for namespace in pair:
            namespace.close()


@pytest.fixture
def tunnel(podman: Engine, cabled: tuple[Namespace, Namespace]) -> Iterator[list[End]]:
    """Both up, by the commands of the page."""
    ends = sides(podman, cabled)
    try:
        configure(ends, ["192.0.2.2:51820", "192.0.2.1:51820"])
        begin, _ = blocks("A tunnel in a container", "sh")
        for end in ends:
            end.sh(begin)
        yield ends
    finally:
        clear(podman)


def sides(podman: Engine, cabled: tuple[Namespace, Namespace]) -> list[End]:
    return [
        End(podman, side, f"10.8.0.{number}", f"ns:/run/netns/{namespace.name}")
        for number, (side, namespace) in enumerate(zip(SIDES, cabled, strict=True), 1)
    ]


def clear(podman: Engine) -> None:
    podman.run("podman", "rm", "--all", "--force", "--time", "0")
    podman.run("podman", "secret", "rm", "--all")


# ---- the image


def test_one_name_leads_to_an_image_for_each_machine(podman: Engine, static: Path) -> None:
    listed = podman.run("buildah", "manifest", "inspect", IMAGE)
    platforms = set(re.findall(r'"architecture": "(\w+)"', listed))
    assert platforms > {"riscv64", "arm"}
    assert '"variant": "v6"' in listed


def test_the_layer_is_the_same_when_it_is_built_again(
    podman: Engine, static: Path, tmp_path: Path
) -> None:
    """What is around it has a host name and a number that buildah makes up each time."""

    def layers() -> set[str]:
        out = tmp_path / "images"
        podman.build("pywgd", "--static", str(static), "--out", str(out))
        manifests = [path.read_text() for path in out.rglob("*manifest.json")]
        found = re.findall(r'"layers":\[(.*?)\]', "".join(manifests))
        return {digest for layer in found for digest in re.findall(r"sha256:\w+", layer)}

    before = layers()
    assert before
    assert layers() == before


# ---- of root


def test_a_tunnel_between_two_containers(
    tunnel: list[End], cabled: tuple[Namespace, Namespace]
) -> None:
    east, west = cabled
    ping(east, "10.8.0.2")
    exchange(west, east, "10.8.0.1", 2_000_000, 1_000_000)


def test_a_container_has_one_capability_and_a_root_that_is_read_only(tunnel: list[End]) -> None:
    status = tunnel[0].process()
    for kind in ("CapPrm", "CapEff", "CapBnd"):
        assert int(status[kind], 16) & ~NET_ADMIN == 0, status
    root = Path(f"/proc/{status['Pid']}/root")
    mounts = Path(f"/proc/{status['Pid']}/mounts").read_text()
    assert re.search(r"^\S+ / \S+ ro,", mounts, re.MULTILINE), mounts
    secret = root / "etc" / "wireguard" / "wg0.conf"
    assert secret.stat().st_mode & 0o777 == 0o400


def test_another_container_joins_the_tunnel_without_a_capability(tunnel: list[End]) -> None:
    """It has the machine's programs, since there are none in the image."""
    (line,) = re.findall(r"`podman run\s+(--network container:tunnel)`", PAGE)
    words = [*line.replace("tunnel", "east").split(), "--cap-drop=all"]
    places = [place for place in ("/usr", "/lib", "/lib64") if Path(place).exists()]
    words += [f"--volume={place}:{place}:ro" for place in places]
    shown = tunnel[0].engine.run(
        *("podman", "run", "--rm", *words),
        *("--entrypoint", '["/usr/bin/ip", "-j", "address", "show", "wg0"]', IMAGE),
    )
    assert '"local":"10.8.0.1"' in shown


def test_health_is_that_of_the_daemon_and_of_its_handshake(tunnel: list[End]) -> None:
    east, west = tunnel
    wait_until(east.is_healthy, "it answers", every=0.1)
    wait_until(lambda: is_met(east), "they have met", every=0.1)
    assert children(east.engine.pid("east")) == []
    alone = End(east.engine, "alone", "10.8.0.3", "none")
    west.sh("podman stop tunnel")
    text = (east.engine.folder / "east.conf").read_text()
    (east.engine.folder / "alone.conf").write_text(text)
    alone.sh(blocks("A tunnel in a container", "sh")[0])
    wait_until(alone.is_healthy, "it answers", every=0.1)
    assert not is_met(alone)
    east.engine.run("podman", "kill", "--signal", "STOP", "east")
    assert not east.is_healthy()


def is_met(end: End) -> bool:
    (line,) = re.findall(r"`podman exec (tunnel [^`]*healthcheck[^`]*)`", PAGE)
    return end.does(*line.split()[1:])


def test_a_container_ends_by_sigterm_and_leaves_nothing(
    tunnel: list[End], cabled: tuple[Namespace, Namespace]
) -> None:
    """137 would be the SIGKILL that podman sends to what does not end."""
    _, (end) = blocks("A tunnel in a container", "sh")
    wait_until(tunnel[0].is_healthy, "it is healthy", every=0.1)
    shown = tunnel[0].sh(end)
    assert "interface: wg0" in shown
    assert tunnel[0].engine.inspect("east")["State"]["ExitCode"] == 0
    assert cabled[0].link("wg0") is None


def test_what_it_says_is_on_stderr(podman: Engine) -> None:
    """Without a configuration it says why it ends."""
    done = podman.attempt(
        *("podman", "run", "--name", "poor", "--cap-drop", "all", "--cap-add", "NET_ADMIN"),
        *("--device", "/dev/net/tun", IMAGE),
    )
    try:
        assert done.returncode not in (0, 125, 126, 127)
        logs = podman.attempt("podman", "logs", "poor")
        assert logs.stdout == ""
        assert "wg0.conf" in logs.stderr
    finally:
        clear(podman)


# ---- as Kubernetes would


def test_the_side_car_is_up_with_what_its_manifest_gives_it(
    podman: Engine, cabled: tuple[Namespace, Namespace]
) -> None:
    ends = sides(podman, cabled)
    configure(ends, ["192.0.2.2:51820", "192.0.2.1:51820"])
    pod = template("sidecar.yaml")
    (container,) = pod["initContainers"]
    try:
        for end in ends:
            start_as_pod(end, pod, container, IMAGE)
        wait_for_probes(ends[0], container)
        ping(cabled[0], "10.8.0.2")
    finally:
        clear(podman)


def wait_for_probes(end: End, container: dict[str, Any]) -> None:
    for kind in ("startupProbe", "readinessProbe"):
        probe = container[kind]["exec"]["command"]

        def succeeds(probe: list[str] = probe) -> bool:
            return end.does(*probe)

        wait_until(succeeds, f"{kind} succeeds", every=0.1)


def template(name: str) -> dict[str, Any]:
    text = (REPOSITORY / "deploy" / "kubernetes" / name).read_text()
    found: dict[str, Any] = yaml.safe_load(text)["spec"]["template"]["spec"]
    return found


def start_as_pod(end: End, pod: dict[str, Any], container: dict[str, Any], image: str) -> None:
    """A container of a manifest, by podman's words for the same."""
    context = container["securityContext"]
    words = [f"--cap-drop={name}" for name in context["capabilities"]["drop"]]
    words += [f"--cap-add={name}" for name in context["capabilities"]["add"]]
    words += ["--user", str(context["runAsUser"])]
    words += ["--read-only"] * context["readOnlyRootFilesystem"]
    words += ["--security-opt=no-new-privileges"] * (not context["allowPrivilegeEscalation"])
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for mount in container["volumeMounts"]:
        volume, path = volumes[mount["name"]], mount["mountPath"]
        if "secret" in volume:
            words += ["--volume", f"{as_secret(end, volume['secret']['defaultMode'])}:{path}:ro"]
        elif "hostPath" in volume:
            words += ["--volume", f"{volume['hostPath']['path']}:{path}"]
        else:
            words += ["--tmpfs", path]
    arguments = container.get("args", [])
    started = ("podman", "run", "--detach", "--name", end.name, *words, image, *arguments)
    end.engine.run(*started, network=end.network)


def as_secret(end: End, mode: int) -> Path:
    """A folder as kubelet makes it: the file is behind two links, so that all change at once."""
    folder = end.engine.folder / f"secret-of-{end.name}"
    data = folder / "..2026_11_28"
    data.mkdir(parents=True)
    shutil.copy(end.engine.folder / f"{end.name}.conf", data / "wg0.conf")
    (data / "wg0.conf").chmod(mode)
    (folder / "..data").symlink_to(data.name)
    (folder / "wg0.conf").symlink_to("..data/wg0.conf")
    return folder


# ---- of an ordinary user


def test_a_tunnel_between_two_containers_of_an_ordinary_user(podman_of_a_user: Engine) -> None:
    podman = podman_of_a_user
    ends = [
        End(podman, side, f"10.8.0.{number}", "slirp4netns") for number, side in enumerate(SIDES, 1)
    ]
    # 10.0.2.2 is the loopback of the host, where the port of the other is published.
    configure(ends, ["10.0.2.2:51821", "10.0.2.2:51820"])
    (begin,) = blocks("As an ordinary user", "sh")
    secret = "podman secret create tunnel-conf wg0.conf\n"
    try:
        ends[0].sh(secret + begin)
        ends[1].sh(secret + begin.replace("51820:", "51821:"))
        ping(ends[0].namespace, "10.8.0.2")
        exchange(ends[0].namespace, ends[1].namespace, "10.8.0.2", 300_000, 200_000)
        wait_until(ends[0].is_healthy, "it is healthy", every=0.1)
        assert int(ends[0].process()["Uid"].split()[0]) == ordinary.UID
        for end in ends:
            end.sh("podman stop tunnel")
            assert podman.inspect(end.name)["State"]["ExitCode"] == 0
    finally:
        clear(podman)


# ---- with Python


@pytest.mark.skipif(BASE is None, reason="a minute: PYWG_IMAGE_BASE, see docs/containers.md")
def test_the_image_with_python(
    podman: Engine, cabled: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*wheel, "--wheel-dir", str(tmp_path), str(REPOSITORY)],
        env={**os.environ, "PYWG_PREBUILT": str(REPOSITORY / "pywg" / "_native")},
        check=True,
    )
    podman.build("pywg", "--wheels", str(tmp_path), "--base", str(BASE), seconds=600)
    ends = sides(podman, cabled)
    configure(ends, ["192.0.2.2:51820", "192.0.2.1:51820"])
    for end in ends:
        path = podman.folder / f"{end.name}.conf"
        hooks = "PostUp = nft add table inet of-%i\nPostUp = setsid sleep 0 &\n"
        path.write_text(path.read_text().replace("[Interface]\n", f"[Interface]\n{hooks}"))
    (begin,) = blocks("With Python", "sh")
    pod = template("gateway.yaml")
    (container,) = pod["containers"]
    try:
        ends[0].sh("podman secret create tunnel-conf wg0.conf\n" + begin)
        start_as_pod(ends[1], pod, container, f"localhost/pywg:{core.version()}")
        wait_for_probes(ends[1], container)
        ping(cabled[0], "10.8.0.2", seconds=30)
        exchange(cabled[0], cabled[1], "10.8.0.2", 2_000_000, 1_000_000)
        wait_until(ends[0].is_healthy, "it is healthy", every=0.1)
        assert "table inet of-wg0" in cabled[0].run("nft", "list", "tables")
        first = podman.pid("east")
        wait_until(lambda: not zombies(first), "what the hook left is waited for")
        podman.run("podman", "stop", "east")
        assert podman.inspect("east")["State"]["ExitCode"] == 0
        assert cabled[0].link("wg0") is None
    finally:
        clear(podman)
