"""Images by buildah and containers by podman: no daemon, and nothing from a registry. What Dockerfiles call Debian is made of Debian's packages.

Needs root, podman, buildah, runc, crun and mmdebstrap, which tests/run installs. Storage is `container` in the target directory, so that
the base is made once. Containers have a network of their own with nothing in it but loopback.
"""

import concurrent.futures
import contextlib
import ctypes
import hashlib
import json
import os
import pathlib
import platform
import shutil
import subprocess
import tempfile
import time

import support

PLACE = support.TARGET / "container"
# Sockets are made in it, so podman takes none of more than 50 characters; and it is one and the same for a storage.
RUNROOT = pathlib.Path("/run") / f"fieldveil-{hashlib.sha256(bytes(PLACE)).hexdigest()[:16]}"
RELEASE = platform.freedesktop_os_release()["VERSION_CODENAME"]
# The program is linked against this machine's C library, so the image is of this machine's release.
DEBIAN = f"docker.io/library/debian:{RELEASE}-slim"
BASE, PYTHON, IMAGE = "fieldveil-base:test", "fieldveil-python:test", "fieldveil:test"
# No mount is left behind in the target directory.
DRIVERS = (("overlay", "--storage-opt", "overlay.skip_mount_home=true"), ("vfs",))
# With what is said to `podman run`. Not every runtime likes every machine's cgroups, and not every machine has any that can be written to.
RUNTIMES = (("runc",), ("crun", "--cgroups=disabled"))
# Podman asks for more than a machine may give; these are below what any gives.
ULIMITS = ("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096")
CLONE_NEWNET = 0x40000000


def run(*command, codes=(0,), **environment):
    # Health checks run when they are asked for: there may be no systemd to run them.
    environment = {**os.environ, "DISABLE_HC_SYSTEMD": "true", **environment}
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=1200, stdin=subprocess.DEVNULL, env=environment
    )
    if done.returncode not in codes:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done


class Way:
    """How containers are kept and run here: of DRIVERS, and of RUNTIMES. `why_not` finds one that works."""

    driver, runtime = DRIVERS[0], RUNTIMES[0]


def place():
    """Makes it. What is in it is of use for as long as it stays where it is."""
    mark = PLACE / "place"
    if not mark.exists() or mark.read_text() != str(PLACE):
        shutil.rmtree(PLACE, ignore_errors=True)
        PLACE.mkdir(parents=True)
        mark.write_text(str(PLACE))


def storage():
    name, *options = Way.driver
    return ("--storage-driver", name, *options, "--root", PLACE / name, "--runroot", RUNROOT / name)


def forget():
    """Of what ran, not of what was made."""
    shutil.rmtree(RUNROOT, ignore_errors=True)


def with_podman(*arguments):
    runtime = shutil.which(Way.runtime[0])
    # Neither a journal nor its warnings: what a container says is a file, and what it says on standard error is all that there is.
    options = ("--cgroup-manager=cgroupfs", "--events-backend=file", "--log-level=error", "--runtime", runtime)
    if arguments[0] == "run":
        arguments = ("run", "--log-driver=k8s-file", *Way.runtime[1:], *ULIMITS, *arguments[1:])
    return [str(word) for word in ("podman", *storage(), *options, *arguments)]


def podman(*arguments, **more):
    return run(*with_podman(*arguments), **more)


def buildah(*arguments):
    return run("buildah", *storage(), *arguments, **support.PROXIES)


def has(image):
    with contextlib.suppress(RuntimeError):
        return bool(podman("image", "exists", image))
    return False


def build(dockerfile, *arguments):
    """As `docker build` does; steps that were done before are not done again."""
    buildah(
        "bud", "--pull-never", "--isolation", "chroot", "--network", "host", "--format", "docker", "--layers",
        "--build-arg", f"DEBIAN={DEBIAN}", "--file", dockerfile, *arguments, support.PROJECT,
    )


def debian(archive):
    """The smallest Debian, under the name that Dockerfiles know it by; without manuals, and hurried, as the public one is."""
    options = (
        "force-unsafe-io", "path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright",
        "path-exclude=/usr/share/man/*", "path-exclude=/usr/share/locale/*",
    )
    # A mirror that fails once is asked again, here and where packages are added.
    retries = '--aptopt=Acquire::Retries "3"'
    run("mmdebstrap", "--variant=minbase", retries, *(f"--dpkgopt={option}" for option in options), RELEASE, archive, **support.PROXIES)


def trial():
    """What the tests ask of a machine, and nothing of what they are about."""
    name = f"trial-{os.getpid()}"
    podman(
        "run", "--replace", "--detach", "--name", name, "--network", "none", "--read-only", "--read-only-tmpfs=false", "--user", "65532:65532",
        "--cap-drop", "all", "--security-opt", "no-new-privileges", "--ulimit", "core=0:0", "--ulimit", "memlock=1048576:1048576",
        DEBIAN, "sleep", "600",
    )
    try:
        podman("exec", name, "true")
    finally:
        podman("rm", "--force", "--time", "0", name)


def why_not():
    """Why no container runs on this machine; none: one does, in the way that was found. Programs that are missing are an error."""
    for program in ("podman", "buildah", "runc", "crun", "mmdebstrap"):
        if shutil.which(program) is None:
            raise RuntimeError(f"{program} is missing (Debian: apt install {program})")
    if os.geteuid() != 0:
        return "they need root here"

    def trouble(act, *arguments):
        try:
            act(*arguments)
        except RuntimeError as error:
            return str(error).strip().splitlines()[-1].translate({ord(quote): "`" for quote in "'\""})

    unable = trouble(run, "unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--mount-proc", "true")
    if unable:
        return unable
    place()
    reasons = []
    with tempfile.TemporaryDirectory(dir=PLACE) as directory:
        archive = pathlib.Path(directory) / "debian.tar"
        for Way.driver in DRIVERS:
            unable = trouble(podman, "info")
            if not unable and not has(DEBIAN):
                # A mirror that cannot be reached is no property of the machine: that is an error.
                if not archive.exists():
                    debian(archive)
                unable = trouble(podman, "import", archive, DEBIAN)
            if unable:
                reasons.append(unable)
                continue
            for Way.runtime in RUNTIMES:
                unable = trouble(trial)
                if not unable:
                    return None
                reasons.append(unable)
            Way.runtime = RUNTIMES[0]
    return reasons[0]


def image():
    """docker/Dockerfile, around the program that is built already."""
    dockerfile = support.PROJECT / "docker/Dockerfile"
    build(dockerfile, "--target", "base", "--tag", BASE)
    with tempfile.TemporaryDirectory(dir=PLACE) as context:
        # As the build from source leaves it.
        run("objcopy", "--strip-debug", support.BINARY, pathlib.Path(context) / "fieldveil")
        build(dockerfile, "--build-context", f"build={context}", "--tag", IMAGE)


def python_image():
    """Debian's Python, where an example asks for that of another image."""
    if not has(PYTHON):
        with tempfile.NamedTemporaryFile("w", suffix=".Dockerfile") as dockerfile:
            dockerfile.write(f"FROM {DEBIAN}\nRUN apt-get update && apt-get install --yes --no-install-recommends python3\n")
            dockerfile.flush()
            build(dockerfile.name, "--tag", PYTHON)


@contextlib.contextmanager
def files(of):
    """The files of an image, as a directory."""
    try:
        yield pathlib.Path(podman("image", "mount", of).stdout.strip())
    finally:
        podman("image", "umount", of)


def readable(stack, source):
    """A copy that any user may read, whoever may read the checkout."""
    copy = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory())) / source.name
    (shutil.copytree if source.is_dir() else shutil.copyfile)(source, copy)
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return copy


class Container:
    """One that runs; it goes with the stack."""

    def __init__(self, stack, name, *arguments):
        self.name = f"{name}-{os.getpid()}"
        podman("run", "--replace", "--detach", "--name", self.name, *arguments)
        stack.callback(podman, "rm", "--force", "--time", "0", self.name)

    def look(self, what):
        return json.loads(podman("inspect", "--format", "{{json .%s}}" % what, self.name).stdout)

    def pid(self):
        return self.look("State.Pid")

    def said(self):
        done = podman("logs", self.name)
        return done.stdout + done.stderr

    def status(self):
        """What the kernel says of its first process, by name."""
        lines = pathlib.Path(f"/proc/{self.pid()}/status").read_text().splitlines()
        return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}

    def until(self, what, holds):
        deadline = time.monotonic() + 60
        while not holds():
            if time.monotonic() > deadline or self.look("State.Status") == "exited":
                raise AssertionError(f"{what}: {self.said()}")
            time.sleep(0.05)

    def healthy(self):
        """As its own health check says, which was run: podman itself ends with other codes."""
        return podman("healthcheck", "run", self.name, codes=(0, 1)).returncode == 0

    def inside(self, act):
        """Calls this on a thread that is in the container's network: sockets that it makes are of there."""
        libc = ctypes.CDLL(None, use_errno=True)

        def enter():
            with open(f"/proc/{self.pid()}/ns/net") as namespace:
                if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            return act()

        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            return thread.submit(enter).result()

    def signal(self, name):
        podman("kill", "--signal", name, self.name)

    def stop(self):
        """Tells it to end, as `docker stop` does; gives the process that waits for that."""
        return subprocess.Popen(
            with_podman("stop", "--time", "40", self.name),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
