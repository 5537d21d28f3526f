"""What users install: wheel and sdist are complete, and a server starts from the wheel with no checkout in reach."""

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from sglang_dflash.tools.serve.client import Client
from sglang_dflash.tools.serve.process import ServerProcess, ServerSpec

ROOT = Path(__file__).parents[2]
SOURCES = ("sglang_dflash", "kernels", "pyproject.toml", "README.md", "LICENSE")


def tracked(*folders: str) -> list[str]:
    """Files below some folders that git knows or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *folders]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    """The wheel, which is built from the sdist, and the sdist, from a copy of the sources."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in tracked(*SOURCES):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name, follow_symlinks=False)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return {"wheel": next(out.glob("*.whl")), "sdist": next(out.glob("*.tar.gz"))}


def expected() -> set[str]:
    """Every file of the package, by its name when installed."""
    names = {name for name in tracked("sglang_dflash") if not (ROOT / name).is_symlink()}
    return names | {f"sglang_dflash/{name}" for name in tracked("kernels")}


def test_the_wheel_holds_every_file_and_nothing_else(built):
    with zipfile.ZipFile(built["wheel"]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == expected()


def test_the_sdist_holds_every_file(built):
    with tarfile.open(built["sdist"]) as sdist:
        names = {member.name.partition("/")[2] for member in sdist.getmembers() if member.isfile()}
    assert expected() - names == set()
    assert not {name for name in names if name.startswith("kernels/")}, "would shadow Hugging Face's package"


def declared(package: str, extras: frozenset[str] = frozenset(), seen: set | None = None) -> set[str]:
    """Installed distributions that a package's metadata ask for, and theirs, and so on."""
    seen = set() if seen is None else seen
    try:
        needs = metadata.requires(package) or ()
    except metadata.PackageNotFoundError:
        return set()
    seen.add((package, extras))
    found = {package}
    for need in map(Requirement, needs):
        here = need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras | {""})
        key = (need.name.lower().replace("_", "-"), frozenset(need.extras))
        if here and key not in seen:
            found |= declared(*key, seen)
    return found


def link_packages(folder: Path, packages: set[str]) -> None:
    """Links to what the packages installed, in a folder of their own."""
    folder.mkdir()
    for package in packages:
        distribution = metadata.distribution(package)
        for name in {Path(file).parts[0] for file in distribution.files or ()} - {"..", "__pycache__", "bin"}:
            source, link = Path(distribution.locate_file(name)), folder / name
            if source.exists() and not link.exists():
                link.symlink_to(source)


@pytest.fixture(scope="module")
def environment(built, tmp_path_factory) -> Path:
    """A virtual environment with the wheel and what its metadata ask for, and nothing else."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home / "venv", with_pip=False)
    python = home / "venv" / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", str(built["wheel"])]
    subprocess.run(command, check=True, capture_output=True)
    with zipfile.ZipFile(built["wheel"]) as wheel:
        text = wheel.read(next(name for name in wheel.namelist() if name.endswith("METADATA"))).decode()
    needs = [Requirement(line.partition(": ")[2]) for line in text.splitlines() if line.startswith("Requires-Dist: ")]
    plain = [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    packages = set().union(*(declared(need.name, frozenset(need.extras)) for need in plain))
    assert "sglang" in packages and "matplotlib" not in packages and "sglang-dflash" not in packages
    link_packages(home / "packages", packages)
    site = next((home / "venv" / "lib").glob("python*/site-packages"))
    (site / "packages.pth").write_text(f"import site; site.addsitedir({str(home / 'packages')!r})\n")
    return home


def clean(environment: Path) -> dict[str, str]:
    """Variables of a process that knows of no checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SGLANG", "VIRTUAL"))}
    return kept | {"PATH": f"{environment / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


def run(environment: Path, *words: str) -> subprocess.CompletedProcess:
    """A command of the environment, run in its folder."""
    command = [str(environment / "venv" / "bin" / words[0]), *words[1:]]
    return subprocess.run(command, cwd=environment, env=clean(environment), capture_output=True, text=True, timeout=300)


def test_light_commands_run(environment):
    where = run(environment, "python", "-c", "import sglang_dflash; print(sglang_dflash.__file__)").stdout
    assert where.startswith(str(environment / "venv"))
    assert "Qwen3-8B" in run(environment, "sglang-dflash", "models").stdout
    assert "launch_server" in run(environment, "sglang-dflash", "launch", "qwen3-8b").stdout


@pytest.mark.parametrize("words", [["bench"], ["train", "target"]])
def test_what_an_extra_brings_is_asked_for_in_one_line(environment, words):
    done = run(environment, "sglang-dflash", *words)
    assert done.returncode == 2
    need = f"error: {words[0]}: needs matplotlib>=3.9 (pip install 'sglang-dflash[{words[0]}]')"
    assert done.stderr.splitlines() == [need]


@pytest.mark.e2e
def test_a_server_starts_from_the_wheel(environment):
    def launcher(command, variables, log_path):
        with log_path.open("wb") as log:
            return subprocess.Popen(
                command,
                cwd=environment,
                env=clean(environment) | {"SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "false"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def command(port):
        return [str(environment / "venv" / "bin" / "sglang-dflash"), "serve", "--port", str(port)]

    with ServerProcess(ServerSpec("wheel"), environment, command=command, launcher=launcher) as server:
        answer = Client(server.url).chat([{"role": "user", "content": "What is 13 + 4420?"}], max_tokens=96)
        log = server.log_path.read_text()
    assert "4433" in answer["choices"][0]["message"]["content"]
    assert "DFLASH runs on sglang_dflash.engine.DFlashWorker" in log
    assert str(ROOT) not in log.replace(sys.prefix, "")
