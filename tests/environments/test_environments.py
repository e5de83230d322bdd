"""Environments: made whole or not at all, found again, isolated. Real ones, of a package made on the spot."""

from __future__ import annotations

import json
import subprocess
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import pytest

from gshf_release import environments
from gshf_release.environments import Environment, EnvironmentSpec, creation
from gshf_release.errors import EngineError, GshfError
from tests.conftest import Outcome

pytestmark = pytest.mark.slow
SPEC = EnvironmentSpec("toy", "plays", "toy.txt", "toy")


def wheel(folder: Path, version: str, code: str = "", module: str = "toy.py") -> None:
    """Write a package `toy` that pip can install."""
    folder.mkdir(exist_ok=True)
    info = f"toy-{version}.dist-info"
    with zipfile.ZipFile(folder / f"toy-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(module, code or f"version = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: toy\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the pins of an environment `toy`; two versions can be installed without network, and one that does not import."""
    wheel(tmp_path / "wheels", "1.0")
    wheel(tmp_path / "wheels", "2.0")
    wheel(tmp_path / "wheels", "3.0", "raise RuntimeError('no such processor')\n")
    monkeypatch.setenv("GSHF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(creation.PIP_ARGUMENTS, f"--no-index --find-links '{tmp_path / 'wheels'}'")
    monkeypatch.setattr(environments, "PINS", tmp_path)
    for module in (environments, creation):
        monkeypatch.setattr(module, "specifications", lambda device="auto": {"toy": SPEC})
    path = tmp_path / "toy.txt"
    path.write_text("# for tests\ntoy==1.0  # small\n", encoding="utf-8")
    return path


def silent(text: str) -> None:
    """Hear nothing."""


def result(made: Environment, code: str) -> str:
    """Return what a process of the environment prints."""
    command = [str(made.python), "-c", code]
    return subprocess.run(command, env=made.variables(), capture_output=True, text=True, check=True).stdout.strip()


def test_an_environment_is_made_found_kept_and_isolated(pins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match=r"'toy' has not been set up\. Run: gshf-release setup toy"):
        environments.require("toy")
    (SPEC.folder / "lib").mkdir(parents=True)
    (SPEC.folder / "lib" / "half").touch()  # what a killed set-up leaves
    assert environments.find("toy") is None
    made = creation.create("toy", silent)
    assert environments.require("toy") == made
    assert not (made.folder / "lib" / "half").exists()
    facts = creation.facts(made)
    assert facts["packages"] == ["toy==1.0"]
    assert facts["bytes"] > 1e6
    monkeypatch.setenv("PYTHONPATH", str(pins.parent))
    monkeypatch.setattr(creation, "_build", lambda *arguments: pytest.fail("made twice"))
    assert creation.create("toy", silent) == made
    assert result(made, "import toy; print(toy.version)") == "1.0"
    assert result(made, "import gshf_release; print(gshf_release.__version__)"), "this package comes along"
    searched = "import importlib.util as u; print([name for name in ('torch', 'numpy', 'click') if u.find_spec(name)])"
    assert result(made, searched) == "[]", "nothing else of ours does"
    assert str(pins.parent) not in result(made, "import sys; print(sys.path)").split("'")


def test_other_pins_make_another_environment_and_name_the_former(pins: Path) -> None:
    """Somebody who shares the cache may be sampling from that one."""
    former = creation.create("toy", silent)
    pins.write_text("toy==2.0\n", encoding="utf-8")
    with pytest.raises(EngineError, match="was set up for other versions"):
        environments.require("toy")
    heard: list[str] = []
    made = creation.create("toy", heard.append)
    assert result(made, "import toy; print(toy.version)") == "2.0"
    assert heard[-1].startswith(f"{former.folder} was made by another version")
    assert result(former, "import toy; print(toy.version)") == "1.0"


def test_of_two_set_ups_at_once_the_second_waits_and_finds_it_made(pins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds: list[str] = []
    inside, go_on = threading.Event(), threading.Event()

    def build(made: Environment, pip_arguments: list[str], say: creation.Say) -> None:
        builds.append(made.spec.name)
        inside.set()
        assert go_on.wait(60)
        made.folder.mkdir(parents=True)
        (made.folder / environments.MANIFEST).write_text("{}", encoding="utf-8")

    monkeypatch.setattr(creation, "_build", build)
    first = threading.Thread(target=creation.create, args=("toy", silent))
    first.start()
    assert inside.wait(60)
    heard: list[str] = []

    def say(text: str) -> None:
        heard.append(text)
        go_on.set()

    creation.create("toy", say)
    first.join()
    assert heard == ["Another process is setting up toy; waiting for it ..."]
    assert builds == ["toy"]


@pytest.mark.parametrize(
    ("pin", "reason"),
    [("toy==3.0", "RuntimeError: no such processor"), ("toy==9.9", "No matching distribution found for toy==9.9")],
)
def test_what_cannot_be_installed_or_does_not_import_is_not_finished(pins: Path, pin: str, reason: str) -> None:
    pins.write_text(f"{pin}\n", encoding="utf-8")
    with pytest.raises(GshfError, match=f"'toy' could not be made: .*{reason}.* The same command tries again"):
        creation.create("toy", silent)
    assert environments.find("toy") is None


def test_options_and_pins_belong_to_the_identity(pins: Path) -> None:
    others = [
        replace(SPEC, variables={"CMAKE_ARGS": "-DX=1"}),
        replace(SPEC, resolve=True),
        replace(SPEC, first=("toy",)),
    ]
    assert len({spec.sha256 for spec in [SPEC, *others]}) == 4


def test_machines_with_and_without_a_gpu_may_share_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    for here, other in (("cuda", "cpu"), ("cpu", "cuda")):
        monkeypatch.setattr(environments, "has_cuda", lambda here=here: here == "cuda")
        kinds = [environments.specifications(device)["vllm"].kind for device in ("auto", here, other)]
        assert kinds == [f"vllm-{here}", f"vllm-{here}", f"vllm-{other}"]


@pytest.fixture
def of_two_kinds(pins: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the pins of a `toy` for GPUs, whose module needs a driver; there is one for CPUs too, and no GPU here."""
    (pins.parent / "toy-cpu.txt").write_text("toy==1.0\n", encoding="utf-8")
    path = pins.parent / "toy-cuda.txt"
    path.write_text("toy==3.0\n", encoding="utf-8")

    def specifications(device: str = "auto") -> dict[str, EnvironmentSpec]:
        chosen = "cpu" if device == "auto" else device
        return {"toy": replace(SPEC, pins=f"toy-{chosen}.txt", device=chosen)}

    monkeypatch.setattr(environments, "has_cuda", lambda: False)
    for module in (environments, creation):
        monkeypatch.setattr(module, "specifications", specifications)
    return path


def test_the_kind_for_gpus_is_made_without_one_for_a_machine_without_network(of_two_kinds: Path) -> None:
    heard: list[str] = []
    made = creation.create("toy", heard.append, device="cuda")
    assert "No cuda here: toy is installed, and tried where it first runs." in heard
    assert environments.require("toy", "cuda") == made
    assert made.folder.name.startswith("toy-cuda-")
    with pytest.raises(EngineError) as caught:
        environments.require("toy")
    assert str(caught.value) == (
        "The environment 'toy' for cpu has not been set up; the one for cuda is there. "
        "Run, here or where there is a network (both must share GSHF_CACHE): gshf-release setup toy --device cpu"
    )
    creation.create("toy", silent, device="cpu")
    assert environments.find("toy", "cuda") == made, "neither takes the other's place"
    of_two_kinds.write_text("toy==2.0\n", encoding="utf-8")
    with pytest.raises(EngineError, match="for cuda was set up for other versions; the one for cpu is there"):
        environments.require("toy", "cuda")


def test_the_kind_for_gpus_is_not_finished_without_its_module(of_two_kinds: Path, tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "4.0", module="other.py")
    of_two_kinds.write_text("toy==4.0\n", encoding="utf-8")
    with pytest.raises(EngineError, match="'toy' could not be made: error: no module toy"):
        creation.create("toy", silent, device="cuda")
    assert environments.find("toy", "cuda") is None


def test_on_a_machine_with_a_gpu_its_kind_has_to_import(of_two_kinds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "has_cuda", lambda: True)
    with pytest.raises(EngineError, match="no such processor"):
        creation.create("toy", silent, device="cuda")


@pytest.mark.parametrize("cuda", [False, True])
def test_every_pin_names_one_exact_version(cuda: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "has_cuda", lambda: cuda)
    for spec in environments.specifications().values():
        found = creation.pinned(spec)
        assert len({line.split("==")[0].lower() for line in found}) == len(found)
        assert all(line.count("==") == 1 and "+" not in line for line in found)
        assert set(spec.first) <= {line.split("==")[0] for line in found}


def test_vllm_is_of_one_version_on_all_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = set()
    for cuda in (False, True):
        monkeypatch.setattr(environments, "has_cuda", lambda cuda=cuda: cuda)
        (pin,) = (line for line in creation.pinned(environments.specifications()["vllm"]) if line.startswith("vllm"))
        versions.add(pin.partition("==")[2])
    assert len(versions) == 1


def test_the_command_takes_every_environment() -> None:
    from gshf_release.cli.setup import DEVICES, NAMES

    assert list(NAMES) == list(environments.specifications())
    assert DEVICES == environments.DEVICES


def test_setup_prints_facts_as_json(
    pins: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Outcome]
) -> None:
    monkeypatch.setattr("gshf_release.cli.setup.command.params", _any_name())
    done = command("setup", "toy", "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert (facts["name"], facts["packages"], Path(facts["path"])) == ("toy", ["toy==1.0"], SPEC.folder)
    assert "toy is set up" in done.err


def test_setup_takes_a_device(
    of_two_kinds: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Outcome]
) -> None:
    monkeypatch.setattr("gshf_release.cli.setup.command.params", _any_name())
    done = command("setup", "toy", "--device", "cuda", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["packages"] == ["toy==3.0"]
    assert "toy for cuda is set up" in done.err


def test_a_device_is_refused_where_one_environment_is_for_all(command: Callable[..., Outcome]) -> None:
    done = command("setup", "quant", "--device", "cpu")
    assert done.code == 2
    assert "quant is one environment for all devices" in done.err


def test_doctor_says_for_which_device_an_environment_is_there(of_two_kinds: Path) -> None:
    from gshf_release.planning.doctor import machine

    creation.create("toy", silent, device="cuda")
    found = {finding.what: finding.found for finding in machine()}
    said = "not set up for cpu; the one for cuda is there; it plays: gshf-release setup toy --device cpu"
    assert found["environment toy"] == said


def _any_name() -> list[click.Parameter]:
    from gshf_release.cli.setup import command

    name, *rest = command.params
    return [click.Argument([str(name.name)]), *rest]
