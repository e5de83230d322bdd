"""Check what this machine can do, and whether what a recipe needs is here."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gshf_release import environments
from gshf_release.environments.creation import facts
from gshf_release.errors import GshfError
from gshf_release.models import checkpoints
from gshf_release.pipeline import Model, build, models
from gshf_release.planning import preflight
from gshf_release.planning.preflight import Finding
from gshf_release.recipe import Recipe, ignored_keys
from gshf_release.recipe.profile import Profile
from gshf_release.rewards import Inference
from gshf_release.rewards.instruction_checks import load_rules
from gshf_release.rewards.models import open_source
from gshf_release.rewards.probe import Probe, probe
from gshf_release.rewards.settings import KEYS, checkpoints_of, settings
from gshf_release.run.manifest import versions


def machine() -> list[Finding]:
    """Return what is installed and available."""
    found = [
        Finding("Python", sys.version.split()[0], sys.version_info >= (3, 11)),
        Finding("CPU cores", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())),
        Finding("memory", f"{_memory() / 1e9:.1f} GB available"),
        Finding("disk", f"{shutil.disk_usage(Path.cwd()).free / 1e9:.1f} GB free here"),
        Finding("cache", str(checkpoints.cache_folder())),
    ]
    installed = versions()
    for package in ("torch", "transformers", "trl"):
        found.append(
            Finding(
                package, installed.get(package, "not installed: pip install 'gshf-release[all]'"), package in installed
            )
        )
    if importlib.util.find_spec("torch"):
        import torch

        name = torch.cuda.get_device_name() if torch.cuda.is_available() else "none; the CPU is used"
        found.append(Finding("GPU", name))
    return found + [_environment(name) for name in environments.names()]


def _environment(name: str) -> Finding:
    """Return whether an environment is set up; nothing is wrong if it is not, as long as nothing needs it."""
    what = f"environment {name}"
    made, spec = environments.find(name), environments.specifications()[name]
    kind, others = spec.purview, environments.others_there(spec)
    if made is None:
        return Finding(what, f"not set up{kind}{others}; it {spec.purpose}: {environments.set_up_command(spec)}")
    return _attempt(what, lambda: f"{spec.purpose}{kind}, {facts(made)['bytes'] / 1e6:.0f} MB{others}")


def check(recipe: Recipe, profile: Profile) -> list[Finding]:
    """Return whether prompts, models and device of a recipe are here."""
    found = [Finding("recipe", f"{recipe.name}, sha256 {recipe.sha256[:12]}")]
    found += [Finding("recipe", warning, warning=True) for warning in ignored_keys.warnings(recipe)]
    found.append(_attempt("prompts", lambda: f"{len(build(recipe).stages)} stages declared"))
    found.append(_attempt("device", lambda: checkpoints.device_of(profile.device)))
    wanted = environments.OF_ENGINE.get(profile.engine)
    if wanted is not None:
        found.append(
            _attempt(f"engine {profile.engine}", lambda: str(environments.require(wanted, profile.device).folder))
        )
    found += [_attempt(model.model, partial(_located, model)) for model in models(recipe)]
    found += preflight.findings(recipe)
    for scorer in KEYS:
        found += _try_scorer(scorer, recipe, profile)
    return found


def _try_scorer(scorer: str, recipe: Recipe, profile: Profile) -> list[Finding]:
    """Return what a scorer makes of five answers of rising badness, if it is here and fits into memory."""
    chosen = settings(recipe, scorer)
    if chosen.trained:
        return [Finding(scorer, "trained by the run itself from contrasts; nothing to try yet")]
    if chosen.checks is not None:
        return [_attempt(scorer, lambda: f"{len(load_rules(str(chosen.checks)))} kinds of rules, checked by a program")]
    try:
        size = max((_bytes(checkpoints.locate(name, revision=at)) for name, at in checkpoints_of(chosen)), default=0)
        how = Inference.of(profile)
    except GshfError:
        return []  # said above, with what to do about it
    size *= 2 if how.precision == "rounded" else 1  # BF16 weights computed with in FP32
    if how.device == "cpu" and size > _memory():
        text = f"not tried: it takes about {size / 1e9:.0f} GB, of which {_memory() / 1e9:.0f} GB are available"
        return [Finding(scorer, text, warning=True)]
    try:
        checkpoints.prepare(profile)
        return _described(scorer, probe(open_source(chosen, how), recipe.prompts.system))
    except GshfError as error:
        return [Finding(scorer, str(error), ok=False)]


def _described(scorer: str, tried: Probe) -> list[Finding]:
    """Return rendered text, order and range of a scorer's five scores; a wrong order is a warning in words."""
    spread = {name: f" ± {value:.2f}" for name, value in tried.deviations.items()}
    ranked = " > ".join(f"{name} {tried.scores[name]:.2f}{spread.get(name, '')}" for name in tried.order)
    values = tried.scores.values()
    found = [
        Finding(f"{scorer} reads", json.dumps(tried.rendered, ensure_ascii=False)),
        Finding(f"{scorer} order", ranked),
        Finding(f"{scorer} range", f"from {min(values):.2f} to {max(values):.2f}"),
    ]
    if tried.folded:
        text = "its template takes no system turn: the system text goes into the first user turn"
        found.append(Finding(scorer, text))
    if tried.warning:
        text = f"of five answers of rising badness {tried.warning}"
        found.append(Finding(scorer, text, warning=True))
    return found


def _located(model: Model) -> str:
    return f"here, {_size(checkpoints.locate(model.model, revision=model.revision, sha256=model.sha256))}"


def _attempt(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, look())
    except GshfError as error:
        return Finding(what, str(error), ok=False)


def _size(path: Path) -> str:
    return f"{_bytes(path) / 1e6:.0f} MB"


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else [entry for entry in path.rglob("*") if entry.is_file()]
    return sum(entry.stat().st_size for entry in files)


def _memory() -> float:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    except OSError:
        pass
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
