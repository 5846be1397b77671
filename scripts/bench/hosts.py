"""Hosts of the lab and programs on them, for the benchmarks beside this file."""
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAB = ROOT / "scripts/lab"
STATE = pathlib.Path(os.environ.get("VC_LAB_DIR", "/tmp/vc-lab")).resolve()
TIMEOUT = 120  # seconds until a failure is called one


class Failed(Exception):
    """One line for the person who runs the benchmark."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(*argv, env=None):
    argv = [str(a) for a in argv]
    done = subprocess.run(argv, env=env, text=True, capture_output=True)
    if done.returncode:
        raise Failed(f"`{' '.join(argv)}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def lab(*args):
    return run(LAB, *args)


def docker(host, *args):
    return ["docker", "--host", f"unix://{STATE}/h{host}/docker.sock", *args]


def until(condition, start, limit=TIMEOUT, every=0.02):
    """Seconds from `start` until the condition holds, or None when the limit passes."""
    while not condition():
        if time.monotonic() - start > limit:
            return None
        time.sleep(every)
    return time.monotonic() - start


def must(seconds, what):
    if seconds is None:
        raise Failed(f"{what}: not within {TIMEOUT} s")
    return seconds


def build():
    """Installs and builds what the benchmarks need, into target/release; VC_BIN=FOLDER says that it is there already."""
    if "VC_BIN" not in os.environ:
        subprocess.run([ROOT / "scripts/packages", "build", "lab"], check=True)
        subprocess.run(["cargo", "build", "--release", "--locked", "--workspace", "--bins"], cwd=ROOT, check=True)
        os.environ["VC_BIN"] = str(ROOT / "target/release")


def program(name):
    path = pathlib.Path(os.environ["VC_BIN"]).resolve() / name
    if not path.exists():
        raise Failed(f"{path} does not exist: unset VC_BIN to have it built")
    return path


def start(host, *argv):
    """A program on a host that goes on, and its first line."""
    process = subprocess.Popen([LAB, "exec", str(host), "--", *map(str, argv)], stdout=subprocess.PIPE, text=True)
    first = process.stdout.readline().strip()
    if not first or first.startswith("error"):
        process.kill()
        raise Failed(f"`{' '.join(map(str, argv))}` failed: {first}")
    return process, first


class Cluster:
    """Nodes on the first hosts of a lab that is up, and `vc` as their admin."""

    def __init__(self, nodes, home):
        # A home of its own: the CLI remembers tokens and members there.
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("VC_", "XDG_"))} | {"HOME": home}
        self.home = pathlib.Path(home)
        addresses = lab("node", 1, "init").splitlines()
        peer = next((a for a in addresses if "/tcp/" in a), addresses[0])
        self.ours = [program("vc"), "--token", STATE / "h1/node/admin.token", "--peer", peer]
        for host in range(2, nodes + 1):
            lab("node", host, "join", self.vc("token", "create", "--node", f"h{host}"))
        must(until(lambda: [r["state"] for r in self.rows("nodes")] == ["up"] * nodes, time.monotonic(), every=0.1),
             f"{nodes} nodes up")

    def vc(self, *words):
        return run(*self.ours, *words, env=self.env)

    def rows(self, *words):
        with contextlib.suppress(Failed):  # it may refuse while the cluster changes shape
            return json.loads(self.vc("--output", "json", *words))
        return []

    def file(self, compose):
        path = self.home / "compose.yaml"
        path.write_text(compose)
        return path


@contextlib.contextmanager
def a_lab(keep=False):
    """Sees to it that no lab is up before, and none after; ends the program with one line when it failed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the lab goes down
    try:
        build()
    except subprocess.CalledProcessError as failed:
        sys.exit(f"bench: {failed}")
    if not lab("status").startswith("no lab"):
        sys.exit("bench: a lab is up, and this would take it down: run scripts/lab down first")
    kept = False
    try:
        with tempfile.TemporaryDirectory() as home:
            yield home
    except Failed as failure:
        kept = keep
        sys.exit(f"bench: {failure}" + (f"\nthe lab is still up: look into {STATE}/h*/node.log" if keep else ""))
    finally:
        if not kept:
            lab("down")
