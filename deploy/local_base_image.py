#!/usr/bin/env python3
"""Makes the two base images of the Dockerfile from this machine's own files, for where no image can
be pulled.

Wants Debian or one of its kind with `gcc` and `libssl-dev`, a docker engine, and nothing else. What
stands for `python:3.11-slim` has this Python under /usr/local and the few Debian packages below;
what stands for `python:3.11` has the compiler besides, and what this machine's pip is set to: its
certificates, its index, and folders of wheels (find-links).
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGES = (
    *("base-files", "bash", "coreutils", "dash", "findutils", "grep", "sed", "tar", "libc-bin"),
    *(
        "libbz2-1.0",
        "libexpat1",
        "libffi8",
        "liblzma5",
        "libreadline8",
        "libsqlite3-0",
        "libssl3",
        "libuuid1",
        "zlib1g",
    ),
    "libstdc++6",
)
COMPILER = ("gcc", "libc6-dev", "libssl-dev")
# They only ask questions at an installation, and bring Perl.
NOT_NEEDED = {"debconf", "debconf-2.0", "perl-base", "mawk", "gawk"}
DOCUMENTS = tuple(
    f"/usr/share/{name}/" for name in ("doc", "info", "lintian", "locale", "man", "bug")
)
TREE = ("bin", "sbin", "lib", "lib64")  # links into /usr, as Debian has it
EMPTY = ("dev", "proc", "sys", "run", "root", "home", "etc", "tmp", "var/tmp", "opt")
NOT_OF_PYTHON = (
    "__pycache__",
    "site-packages",
    "test",
    "tests",
    "config-*",
    "idlelib",
    "tkinter",
    "turtledemo",
    "*.a",
)
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
WHEELS = "/opt/wheels"
# There is no cache of the loader's that would know of /usr/local/lib.
VARIABLES = "PATH=/usr/local/bin:/usr/bin:/bin LD_LIBRARY_PATH=/usr/local/lib LANG=C.UTF-8"


def main() -> int:
    """Make both images; the exit code."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        "base", nargs="?", default="moesaic-base", help="name of the image that services run on"
    )
    parser.add_argument(
        "build_base",
        nargs="?",
        default="moesaic-build-base",
        help="name of the one with a compiler",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "python"
        _copy_python(python)
        import_image(options.base, python, files_of(PACKAGES))
        import_image(options.build_base, python, files_of((*PACKAGES, *COMPILER)), with_pip=True)
    return 0


def files_of(packages: Iterable[str]) -> list[Path]:
    """The files of installed packages and of all that they depend on, documents left out, where
    they really are.
    """
    listed = _output("dpkg", "-L", *sorted(_with_dependencies(packages))).splitlines()
    kept = (
        Path(line) for line in listed if line.startswith("/") and not line.startswith(DOCUMENTS)
    )
    resolved = {
        path.parent.resolve() / path.name for path in kept if path.is_symlink() or path.is_file()
    }
    return sorted(path for path in resolved if path.parent != Path("/"))


def import_image(name: str, python: Path, files: Iterable[Path], *, with_pip: bool = False) -> None:
    """Give docker a file system of these files and Python, under this name."""
    command = [
        "docker",
        "import",
        "--change",
        f"ENV {VARIABLES}",
        "--change",
        'CMD ["python3"]',
        "-",
        name,
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as importing:
        assert importing.stdin is not None, "it is a pipe"
        with tarfile.open(fileobj=importing.stdin, mode="w|") as archive:
            for folder in EMPTY:
                archive.addfile(
                    _entry(folder, tarfile.DIRTYPE, 0o1777 if folder.endswith("tmp") else 0o755)
                )
            for link in TREE:
                archive.addfile(_link(link, f"usr/{link}"))
            for path in files:
                archive.add(path, recursive=False, filter=_as_root)
            archive.add(python, "usr/local", filter=_as_root)
            if with_pip:
                _add_pip_settings(archive, python.parent)
        importing.stdin.close()
    if importing.returncode:
        raise SystemExit(f"docker import of {name} failed")


def _copy_python(target: Path) -> None:
    """This Python with its headers, stripped, and without what only its own tests and
    editors need.
    """
    version = f"python{sysconfig.get_python_version()}"
    base = Path(sys.base_prefix)
    (target / "bin").mkdir(parents=True)
    shutil.copy2(base / "bin" / version, target / "bin")
    for folder in (f"lib/{version}", f"include/{version}"):
        shutil.copytree(
            base / folder,
            target / folder,
            symlinks=True,
            ignore=shutil.ignore_patterns(*NOT_OF_PYTHON),
        )
    for library in (base / "lib").glob("libpython*.so*"):
        shutil.copy2(library, target / "lib", follow_symlinks=False)
    (target / f"lib/{version}/site-packages").mkdir()
    for name in ("python", "python3"):
        (target / "bin" / name).symlink_to(version)
    binaries = [target / "bin" / version, *target.rglob("*.so*")]
    subprocess.run(
        ["strip", "--strip-unneeded", *(path for path in binaries if not path.is_symlink())],
        check=True,
    )


def _add_pip_settings(archive: tarfile.TarFile, folder: Path) -> None:
    lines = ["[global]"]
    if CERTIFICATES.exists():
        archive.add(CERTIFICATES.resolve(), CERTIFICATES, filter=_as_root)
        lines.append(f"cert = {CERTIFICATES}")
    if index := _pip_setting("index-url"):
        lines.append(f"index-url = {index}")
    for number, links in enumerate(filter(os.path.isdir, _pip_setting("find-links").split())):
        archive.add(links, f"{WHEELS}/{number}", filter=_as_root)
        lines.append(f"find-links = {WHEELS}/{number}" if number == 0 else f"    {WHEELS}/{number}")
    settings = folder / "pip.conf"
    settings.write_text("\n".join(lines) + "\n")
    archive.add(settings, "etc/pip.conf", filter=_as_root)


def _pip_setting(name: str) -> str:
    """What pip is set to by a variable or else by its files; empty where it is not."""
    said = os.environ.get(f"PIP_{name.replace('-', '_').upper()}")
    if said is not None:
        return said
    asked = [sys.executable, "-m", "pip", "config", "get", f"global.{name}"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


def _with_dependencies(packages: Iterable[str]) -> set[str]:
    depends = dict(_installed())
    found: set[str] = set()
    waiting = list(packages)
    while waiting:
        package = waiting.pop()
        if package in found or package in NOT_NEEDED or package not in depends:
            continue  # what is not installed is an alternative or a virtual package
        found.add(package)
        waiting += depends[package]
    return found


def _installed() -> Iterator[tuple[str, list[str]]]:
    """Every installed package with the names that it depends on, alternatives among them."""
    for line in _output(
        "dpkg-query", "-W", "-f", "${Package}\t${Pre-Depends}, ${Depends}\n"
    ).splitlines():
        package, _, names = line.partition("\t")
        alternatives = names.replace("|", ",").split(",")
        yield package, [name.split()[0].partition(":")[0] for name in alternatives if name.strip()]


def _as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, mode
    return entry


def _link(name: str, target: str) -> tarfile.TarInfo:
    entry = _entry(name, tarfile.SYMTYPE, 0o777)
    entry.linkname = target
    return entry


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
