"""The images that a cluster of containers runs, made here: there is no registry.

All is kept below the user's cache, under a checksum of what it is made of.
"""

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from noderestrict.render.workload import IMAGE
from tests.containers.cluster import run

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "noderestrict" / "cluster"
#: What kubeadm takes for its registry.
REGISTRY = "test.local"
SUITE = "bookworm"
#: Of a node, beyond a minimal Debian.
NODE_PACKAGES = (
    "conntrack", "containerd", "containernetworking-plugins", "curl", "ethtool", "iproute2",
    "iptables", "kmod", "procps", "runc", "socat",
)  # fmt: skip
#: What a Python is linked to.
PYTHON_PACKAGES = (
    "ca-certificates", "libbz2-1.0", "libexpat1", "libffi8", "liblzma5", "libncursesw6",
    "libreadline8", "libsqlite3-0", "libssl3", "libuuid1", "zlib1g",
)  # fmt: skip
#: The packages of the image on which ours runs.
RUN_PACKAGES = ("base-files", "libc6", "libgcc-s1", "libgomp1", "libssl3", "libstdc++6", "zlib1g")
#: Where images without dpkg say which packages they have.
RECORDS = "var/lib/dpkg/status.d"
#: The programs of kube-proxy's image, which runs what else needs a shell, too.
PROGRAMS = (
    "/usr/bin/dash", "/usr/bin/cat", "/usr/bin/sleep", "/usr/sbin/conntrack",
    "/usr/sbin/xtables-nft-multi",
)  # fmt: skip
SHELL_IMAGE = f"{REGISTRY}/shell:1"
PAUSE_IMAGE = f"{REGISTRY}/pause:1"


def checksum(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part.encode() if isinstance(part, str) else part).digest())
    return digest.hexdigest()[:16]


def kept(path: Path, make: Callable[[Path], None]) -> Path:
    """Return a file or folder of the cache, made if it is not there yet.

    Args:
        path: where it is kept.
        make: makes it at another path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        # Somebody else may be making it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return path
        new = path.with_name(f"new-{path.name}")
        if new.is_dir():
            shutil.rmtree(new)
        new.unlink(missing_ok=True)
        make(new)
        new.rename(path)
    return path


def node_root() -> Path:
    """Return the root filesystem of a node, without Kubernetes."""
    packages = ",".join((*NODE_PACKAGES, *PYTHON_PACKAGES, *RUN_PACKAGES))

    def make(path: Path) -> None:
        run("debootstrap", "--variant=minbase", f"--include={packages}", SUITE, str(path),
            timeout=1200)  # fmt: skip
        shutil.rmtree(path / "var" / "cache" / "apt")

    return kept(CACHE / f"root-{checksum(SUITE, packages)}", make)


class Builder:
    """Buildah with a store of its own.

    Args:
        root: the root filesystem of a node.
        folders: with the commands of Kubernetes, each named by a checksum.
    """

    def __init__(self, root: Path, folders: Iterable[Path]) -> None:
        self._root = root
        self._binaries = {one.name: one for folder in folders for one in folder.iterdir()}

    def _buildah(self, *arguments: str) -> str:
        store = CACHE / "buildah"
        return run(
            "buildah", "--root", str(store / "root"), "--runroot", str(store / "run"),
            "--storage-driver", "overlay", *arguments, timeout=1800,
        ).strip()  # fmt: skip

    def _has(self, image: str) -> bool:
        return f"localhost/{image}" in self._buildah("images", "--format", "{{.Name}}:{{.Tag}}")

    def _commit(self, image: str, tree: Path, *config: str) -> None:
        container = self._buildah("from", "scratch")
        self._buildah("copy", "--quiet", container, str(tree), "/")
        self._buildah("config", *config, container)
        self._buildah("commit", "--quiet", "--rm", container, image)

    def _archive(self, name: str, key: str, make: Callable[[str], None]) -> Path:
        """Return the archive of an image, which is built if the archive is not there yet.

        Args:
            name: of the image.
            key: a checksum of what it is made of.
            make: builds it under a name.
        """
        images, stem = CACHE / "images", name.replace("/", "_").replace(":", "_")

        def archive(path: Path) -> None:
            built = f"{stem}:{key}"
            make(built)
            self._buildah("push", "--quiet", built, f"docker-archive:{path}:{name}")
            for old in sorted(images.glob(f"{stem}-*.tar"), key=lambda one: one.stat().st_mtime)[
                :-2
            ]:
                old.unlink()

        return kept(images / f"{stem}-{key}.tar", archive)

    def unpack(self, archive: Path, folder: Path) -> None:
        """Write the manifest and blobs of an image to a folder, as a registry serves them."""
        image = self._buildah("pull", "--quiet", f"docker-archive:{archive}")
        self._buildah("push", "--quiet", "--format=v2s2", image, f"dir:{folder}")

    def layout(self, archive: Path, folder: Path) -> None:
        """Write an image to a folder as OCI lays it out."""
        image = self._buildah("pull", "--quiet", f"docker-archive:{archive}")
        self._buildah("push", "--quiet", image, f"oci:{folder}")

    def command(self, name: str, tag: str, *, shell: bool = False) -> Path:
        """Return the image of a command of Kubernetes.

        Args:
            name: of the command and of the image.
            tag: of the image.
            shell: whether the image has programs beside.
        """
        binary = self._binaries[name].resolve()
        image = f"{REGISTRY}/{name}:{tag}"

        def make(built: str) -> None:
            with tempfile.TemporaryDirectory() as folder:
                tree = Path(folder)
                if shell:
                    self._programs(tree)
                target = tree / "usr" / "local" / "bin" / name
                target.parent.mkdir(parents=True)
                shutil.copy(binary, target)
                # kubeadm names its commands without a path.
                path = "PATH=/usr/local/bin:/usr/sbin:/usr/bin"
                self._commit(built, tree, "--env", path, "--entrypoint", f'["{name}"]')

        return self._archive(image, checksum(binary.parent.name, str(shell)), make)

    def pause(self, image: str = PAUSE_IMAGE) -> Path:
        """Return the image of the container that holds a pod's namespaces.

        Args:
            image: its name; an image of another name is another image.
        """

        def make(built: str) -> None:
            with tempfile.TemporaryDirectory() as folder:
                target = Path(folder) / "pause"
                # A static program that waits for ever, and has no children of others to wait for.
                source = Path(__file__).parent / "node" / "pause.go"
                run("env", "CGO_ENABLED=0", "go", "build", "-ldflags=-s -w", "-o", str(target),
                    str(source))  # fmt: skip
                self._commit(built, Path(folder), "--user", "65535", "--label", f"name={image}",
                             "--entrypoint", '["/pause"]')  # fmt: skip

        source = (Path(__file__).parent / "node" / "pause.go").read_bytes()
        return self._archive(image, checksum(source, image), make)

    def shell(self) -> Path:
        """Return an image with a shell, for pods that end."""

        def make(built: str) -> None:
            with tempfile.TemporaryDirectory() as folder:
                self._programs(Path(folder))
                self._commit(built, Path(folder), "--env", "PATH=/usr/bin:/usr/sbin")

        return self._archive(SHELL_IMAGE, checksum(self._root.name, *PROGRAMS), make)

    def _programs(self, tree: Path) -> None:
        """Copy a few programs of a node, and what they are linked to."""
        modules = "/usr/lib/x86_64-linux-gnu/xtables"
        plugins = [f"{modules}/{one.name}" for one in (self._root / modules[1:]).iterdir()]
        wanted = [*PROGRAMS, *plugins]
        linked = run("chroot", str(self._root), "ldd", *wanted)
        libraries = {word for word in linked.split() if word.startswith("/") and ".so" in word}
        for file in {*wanted, *(one.rstrip(":") for one in libraries)}:
            self._copy(file, tree)
        for name in ("bin", "sbin", "lib", "lib64"):
            (tree / name).symlink_to(f"usr/{name}")
        (tree / "usr" / "bin" / "sh").symlink_to("dash")
        for name in ("iptables", "ip6tables"):
            for suffix in ("", "-save", "-restore"):
                (tree / "usr" / "sbin" / f"{name}{suffix}").symlink_to("xtables-nft-multi")
        (tree / "tmp").mkdir(mode=0o777)
        (tree / "etc").mkdir(exist_ok=True)
        (tree / "etc" / "passwd").write_text("root:x:0:0:root:/:/usr/sbin/nologin\n")

    def _copy(self, file: str, tree: Path) -> None:
        """Copy a file of a node's root, whose parents may be links."""
        source = self._root / file.lstrip("/")
        if source.is_dir():
            return
        parent = source.parent.resolve()
        target = tree / parent.relative_to(self._root) / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink() and not target.is_symlink():
            link = source.readlink()
            shutil.copy(source, target, follow_symlinks=False)
            if not link.is_absolute():
                link = (parent / link).relative_to(self._root)
            self._copy(str(link), tree)
        elif source.is_file():
            shutil.copy(source, target)

    def product(self) -> Path:
        """Return our image, built from our Dockerfile."""
        arguments = []
        if not os.environ.get("IMAGE_ARGS"):
            arguments = [
                "--build-arg", f"BUILD_IMAGE=localhost/{self._build_base()}",
                "--build-arg", f"RUN_IMAGE=localhost/{self._run_base()}",
            ]  # fmt: skip
        arguments += os.environ.get("IMAGE_ARGS", "").split()
        files = [ROOT / name for name in ("Dockerfile", "pyproject.toml", "requirements.txt")]
        files += sorted((ROOT / "noderestrict").rglob("*"))
        contents = [one.read_bytes() for one in files if one.is_file() and one.suffix != ".pyc"]

        def make(built: str) -> None:
            # A package index may be known to this machine only.
            mounts = [f"--volume={one}:{one}:ro" for one in ("/etc/ssl/certs", "/etc/resolv.conf")]
            self._buildah("bud", "--quiet", "--isolation=chroot", "--layers=false", *mounts,
                          *arguments, "--tag", built, str(ROOT))  # fmt: skip

        return self._archive(IMAGE, checksum(*arguments, *contents), make)

    def _build_base(self) -> str:
        """Return the stand-in for the Dockerfile's python image."""
        prefix = Path(os.environ.get("IMAGE_PYTHON", sys.base_prefix))
        # Scanners look for this string. A linker lets it share the end of the path of a prefix.
        version = f"\0{run(str(prefix / 'bin' / 'python3'), '-V').split()[1]}\0"
        strip = shutil.which("strip")
        image = f"build-base:{checksum(self._root.name, str(prefix), version, str(strip))}"
        if not self._has(image):
            with tempfile.TemporaryDirectory(dir=CACHE) as folder:
                tree = Path(folder) / "tree"
                run("cp", "-a", str(self._root), str(tree))
                local = tree / "usr" / "local"
                for name in ("bin", "include", "lib"):
                    run("cp", "-a", "--no-target-directory", str(prefix / name), str(local / name))
                for one in (local / "lib").glob("python3*/site-packages/*"):
                    shutil.rmtree(one) if one.is_dir() else one.unlink()
                if strip:
                    # As the real one is built.
                    objects = (*local.glob("lib/**/*.so*"), *local.glob("bin/python3.[0-9]*"))
                    for one in objects:
                        if one.read_bytes()[:4] == b"\x7fELF":
                            one.chmod(0o755)
                            run(strip, "--strip-unneeded", str(one))
                for one in local.glob("lib/libpython3.*.so.*"):
                    with one.open("ab") as library:
                        library.write(version.encode())
                bin_ = ["--env", "PATH=/usr/local/bin:/usr/sbin:/usr/bin"]
                libraries = ["--env", "LD_LIBRARY_PATH=/usr/local/lib"]
                self._commit(image, tree, *bin_, *libraries)
        return image

    def _run_base(self) -> str:
        """Return the stand-in for the Dockerfile's distroless image: the same packages."""
        image = f"run-base:{checksum(self._root.name, RECORDS, *RUN_PACKAGES)}"
        if not self._has(image):
            with tempfile.TemporaryDirectory() as folder:
                tree = Path(folder)
                for file in run("chroot", str(self._root), "dpkg", "-L", *RUN_PACKAGES).split():
                    if file != "/." and not file.startswith("/usr/share/doc"):
                        self._copy(file, tree)
                records = tree / RECORDS
                records.mkdir(parents=True)
                for name in RUN_PACKAGES:
                    status = run("chroot", str(self._root), "dpkg-query", "--status", name)
                    (records / name).write_text(status)
                for name in ("lib", "lib64"):
                    (tree / name).symlink_to(f"usr/{name}")
                (tree / "tmp").mkdir(mode=0o777)
                (tree / "home" / "nonroot").mkdir(parents=True)
                etc = tree / "etc"
                shutil.copytree(self._root / "etc" / "ssl", etc / "ssl", dirs_exist_ok=True)
                (etc / "passwd").write_text(
                    "root:x:0:0:root:/root:/sbin/nologin\n"
                    "nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"
                )
                (etc / "group").write_text("root:x:0:\nnonroot:x:65532:\n")
                self._commit(image, tree, "--user", "65532", "--workingdir", "/home/nonroot")
        return image
