"""Isolated, pinned virtual environments for what cannot live beside the rest: vLLM, llama.cpp, llm-compressor.

Each is a folder in the cache, named after its content. `gshf-release setup NAME` makes it, and whatever needs it finds it
without further words. Code of this package runs in one through `Environment.command`: the package comes along, nothing else
of the environment that calls does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gshf_release.data.assets import cache_folder
from gshf_release.data.hashing import sha256_file, sha256_json
from gshf_release.errors import EngineError

MANIFEST = "manifest.json"
PINS = Path(__file__).resolve().parent / "pins"
SAFE_PATH, SAFE_PATH_VARIABLE = "-P", "PYTHONSAFEPATH"
"""Of Python: import nothing from the current folder, which may be somebody else's run with a `torch.py` in it."""
AUTO = "auto"
"""The device that this machine has."""
DEVICES = ("cuda", "cpu")
OF_ENGINE = {"vllm": "vllm"}
"""The environment a sampling engine lives in; engines that are not here live beside the rest."""


@dataclass(frozen=True, slots=True)
class EnvironmentSpec:
    """Says what an environment is made of."""

    name: str
    """As in `gshf-release setup NAME`."""
    purpose: str
    pins: str
    """File in `pins/`: one `package==version` a line."""
    imports: str
    """A module that must import before the environment counts as finished."""
    first: tuple[str, ...] = ()
    """Packages of the pins that bring requirements of their own, which differ by machine; installed before the others."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables while packages are installed."""
    resolve: bool = False
    """The pins name the packages wanted, and pip chooses what those require; else they are the whole list."""
    device: str = ""
    """What it computes on, where there is one environment for each device of `DEVICES`."""

    @property
    def pins_path(self) -> Path:
        """The file with the pins."""
        return PINS / self.pins

    @property
    def sha256(self) -> str:
        """Identity of what is installed: other pins, options or Python make another environment."""
        parts = [self.name, sha256_file(self.pins_path), list(self.first), dict(self.variables), self.resolve]
        return sha256_json([*parts, list(sys.version_info[:2]), sys.platform])

    @property
    def folder(self) -> Path:
        """Return where it is, or will be."""
        return environments_folder() / f"{self.kind}-{self.sha256[:12]}"

    @property
    def purview(self) -> str:
        """Its device, in words that follow its name."""
        return f" for {self.device}" if self.device else ""

    @property
    def can_run_here(self) -> bool:
        """Return whether this machine has its device; an environment for GPUs can be made without one."""
        return self.device != "cuda" or has_cuda()

    @property
    def kind(self) -> str:
        """Its name and the kind of machine it is for, where that matters: machines may share a cache."""
        return self.pins.removesuffix(".txt")


@dataclass(frozen=True, slots=True)
class Environment:
    """A finished environment."""

    spec: EnvironmentSpec
    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def command(self, module: str, *arguments: str) -> list[str]:
        """Return the command that runs a module in it."""
        return [str(self.python), SAFE_PATH, "-m", module, *arguments]

    def variables(self) -> dict[str, str]:
        """Return the environment variables of a process in it: this package is on its path, and nothing else of ours."""
        kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        scripts = self.folder / "bin"
        return kept | {
            "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": str(package_folder()),
            "PYTHONNOUSERSITE": "1",
            SAFE_PATH_VARIABLE: "1",
            "VIRTUAL_ENV": str(self.folder),
        }


def environments_folder() -> Path:
    """Return the folder of all environments in the cache."""
    return cache_folder() / "environments"


def has_cuda() -> bool:
    """Return whether this machine has an NVIDIA device and its driver, without importing torch."""
    return Path("/dev/nvidiactl").exists()


def specifications(device: str = AUTO) -> dict[str, EnvironmentSpec]:
    """Return every environment for a device, by name: one of `DEVICES`, or `auto` for the one that this machine has."""
    sampling = "samples with vLLM"
    found = [
        EnvironmentSpec("vllm", sampling, "vllm-cuda.txt", "vllm", resolve=True, device="cuda")
        if device == "cuda" or (device == AUTO and has_cuda())
        else EnvironmentSpec("vllm", sampling, "vllm-cpu.txt", "vllm", first=("torch",), device="cpu"),
        EnvironmentSpec("quant", "quantizes with llm-compressor", "quant.txt", "llmcompressor", first=("torch",)),
        EnvironmentSpec(
            "llama-cpp",
            "quantizes, opens and serves GGUF files with llama.cpp",
            "llama-cpp.txt",
            "llama_cpp",
            variables={"CMAKE_ARGS": "-DLLAVA_BUILD=OFF"},  # no images here, and a third less to compile
        ),
    ]
    return {spec.name: spec for spec in found}


def find(name: str, device: str = AUTO) -> Environment | None:
    """Return an environment if it has been set up as it is specified now.

    Raises:
        KeyError: There is no environment of this name.
    """
    spec = specifications(device)[name]
    return Environment(spec, spec.folder) if (spec.folder / MANIFEST).is_file() else None


def require(name: str, device: str = AUTO) -> Environment:
    """Return an environment.

    Raises:
        EngineError: It has not been set up; the hint names the command that does.
    """
    found = find(name, device)
    if found is None:
        spec = specifications(device)[name]
        stale = any(environments_folder().glob(f"{spec.kind}-*/{MANIFEST}"))
        state = "was set up for other versions" if stale else "has not been set up"
        raise EngineError(f"The environment {name!r}{spec.purview} {state}{others_there(spec)}.", hint=_hint(spec))
    return found


def others_there(spec: EnvironmentSpec) -> str:
    """Return, in words, which environments of the same name are there for other devices; machines may share a cache."""
    others = [device for device in DEVICES if spec.device and device != spec.device]
    return "".join(f"; the one for {device} is there" for device in others if find(spec.name, device))


def set_up_command(spec: EnvironmentSpec) -> str:
    """Return the command that makes an environment, on whatever machine."""
    return f"gshf-release setup {spec.name}" + (f" --device {spec.device}" if spec.device else "")


def _hint(spec: EnvironmentSpec) -> str:
    """Return what to do about a missing environment: machines with GPUs often have no network, and share a cache with one."""
    where = ", here or where there is a network (both must share GSHF_CACHE)" if spec.device else ""
    return f"Run{where}: {set_up_command(spec)}"


def names() -> Sequence[str]:
    """Return the names that `setup` takes."""
    return list(specifications())


def package_folder() -> Path:
    """Return a folder in the cache that holds this package and nothing else: no other library of ours gets onto a path."""
    package = Path(__file__).resolve().parent.parent
    folder = environments_folder() / "package" / sha256_json(str(package))[:12]
    link = folder / package.name
    if not link.is_symlink():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{os.getpid()}"
        temporary.symlink_to(package, target_is_directory=True)
        temporary.replace(link)
    return folder
