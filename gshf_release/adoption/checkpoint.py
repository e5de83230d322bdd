"""A checkpoint that another tool made (TRL, axolotl, anybody's `save_pretrained`) as one release folder.

What belongs to a model is taken, what belongs to its training (optimiser, arguments, pickles) is left out and named. The same
rules hold as for a run's own releases: headers, end tokens, chat template, secrets, licence.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from gshf_release import __version__
from gshf_release.data.results import Cell, read_cells, shown, write_cells
from gshf_release.errors import CheckpointError, GshfError, NetworkError, ReleaseError
from gshf_release.hub import client as hub_client
from gshf_release.models import checkpoints
from gshf_release.models.checkpoint_files import refuse_code
from gshf_release.models.portability import make_portable
from gshf_release.recipe import AllowedFinding, parse, read_mapping
from gshf_release.release import card_templates, chat_templates, eval_results, manifest, rules, weights
from gshf_release.release.facts import HUB_ID, Facts
from gshf_release.release.staging import link_or_copy
from gshf_release.report.notices import notices
from gshf_release.report.tables import Table

TAKEN = (
    "*.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    chat_templates.FILE,
)
OWN_FACTS = ("allowed_findings", "template_change")
TEMPLATE = "checkpoint.md.j2"


def adopt_checkpoint(folder: Path, target: Path, *, name: str, facts: str, results: Path | None) -> list[str]:
    """Write the release of a checkpoint folder; return the names of the files that were left out.

    Args:
        folder: A Hugging Face checkpoint with safetensors weights.
        target: Folder to write; must not exist.
        name: `OWNER/NAME`, or a name.
        facts: A YAML file: the card's facts, and `allowed_findings` and `template_change` as in a recipe's `release`.
        results: A file of result cells (`{"cells": [...]}`), or None.

    Raises:
        ReleaseError: Something must not be published, is missing, or `target` exists.
        CheckpointError: The folder holds no checkpoint that can be read.
        NetworkError: The base model's chat template could not be fetched.
    """
    if target.exists():
        raise ReleaseError(f"{target} exists.", hint="Choose another folder with --out, or another --tag.")
    try:
        return _make(folder, target, name, facts, results)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)  # no half of a release is left
        raise


def _make(folder: Path, target: Path, name: str, facts: str, results: Path | None) -> list[str]:
    own, known = _facts(facts, target)
    if known.license is None:
        raise ReleaseError("A release needs a licence.", hint=f"Write `license: apache-2.0` or another into {facts}.")
    taken = _take(folder, target)
    left_out = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path not in taken
    )
    dtype = _dtype(target)
    weights.check_files(target, dtype)
    weights.turn_ends(checkpoints.load_tokenizer(target), target)
    if own.get("template_change") is None:
        chat_templates.check_against_base(target, _base_template(known.base_model), None)
    cells = [] if results is None else read_cells(results)
    if cells:
        (target / eval_results.RESULTS).parent.mkdir()
        write_cells(cells, target / eval_results.RESULTS)
    (target / "README.md").write_text(_card(known, name, target.name, cells), encoding="utf-8")
    allowed = _allowed(own.get("allowed_findings") or [], facts)
    rules.check_folder(target, allowed)
    digest = chat_templates.sha256(target)
    document: dict[str, Any] = {
        "name": name,
        "dtype": dtype,
        "versions": {"gshf-release": __version__},
        "provenance": "unknown",
    }
    document |= {} if digest is None else {"chat_template_sha256": digest}
    manifest.write_release_manifest(target, document | {key: value for key, value in own.items() if value})
    return left_out


def _allowed(entries: Any, where: str) -> list[AllowedFinding]:
    if not isinstance(entries, list):
        raise ReleaseError(f"{where}: allowed_findings must be a list.")
    named = [entry if isinstance(entry, dict) else {"file": entry} for entry in entries]
    return [parse(AllowedFinding, entry, f"{where}: allowed_findings {at}") for at, entry in enumerate(named, 1)]


def _facts(reference: str, target: Path) -> tuple[dict[str, Any], Facts]:
    """Return the keys of the facts file that are about the release, and those about its card."""
    if not Path(reference).is_file():
        raise ReleaseError(f"{reference} does not exist.", hint="Give a YAML file with at least `license: ...`.")
    content = read_mapping(Path(reference))
    own = {key: content.pop(key) for key in OWN_FACTS if key in content}
    target.mkdir(parents=True)
    rest = target / "facts.yaml"
    rest.write_text(yaml.safe_dump(content), encoding="utf-8")
    try:
        return own, Facts.load(str(rest))
    except GshfError as error:
        raise ReleaseError(error.message.replace(str(rest), reference), hint=error.hint) from error
    finally:
        rest.unlink()


def _take(folder: Path, target: Path) -> list[Path]:
    """Copy what belongs to the model. The configurations lose the path they were loaded from; transformers 4 reads them too."""
    refuse_code(folder)
    taken = sorted(path for pattern in TAKEN for path in folder.glob(pattern))
    refuse_links_out(folder, taken)
    taken = [path for path in taken if not rules.TRAINING_STATE.search(path.name)]
    if not any(path.suffix == ".safetensors" for path in taken):
        raise ReleaseError(
            f"{folder} holds no safetensors weights.",
            hint="Load it with transformers and call save_pretrained; pickled weights are not published.",
        )
    if any(path.name == "adapter_model.safetensors" for path in taken):
        raise ReleaseError(f"{folder} is an adapter.", hint="Merge it into its base first: model.merge_and_unload().")
    for path in taken:
        link_or_copy(path, target / path.name)
    make_portable(target)
    return taken


def refuse_links_out(folder: Path, paths: Sequence[Path]) -> None:
    """Refuse links to files elsewhere: a folder that somebody else made could bring any file of this machine into a release.

    Weights are looked into and may lie elsewhere; so may everything in the Hub's cache, which is made of links.

    Raises:
        ReleaseError: Names the link.
    """
    here = folder.resolve()
    blobs = here.parents[1] / "blobs" if here.parent.name == "snapshots" else here
    for path in paths:
        target = path.resolve()
        if path.suffix != ".safetensors" and not (target.is_relative_to(here) or target.parent == blobs):
            raise ReleaseError(
                f"{path} is a link to {target}, outside of the folder.", hint="Put the file itself there."
            )


def _dtype(folder: Path) -> str:
    """Return the one dtype of all tensors."""
    found = {
        tensor["dtype"] for path in folder.glob("*.safetensors") for tensor in rules.safetensors_header(path).values()
    }
    if len(found) != 1:
        raise ReleaseError(
            f"The tensors have the types {', '.join(sorted(found))}.", hint="Save the model in one type, best BF16."
        )
    return str(found.pop())


def _base_template(base: str | None) -> str | None:
    """Return the chat template of the base model on the Hub."""
    if base is None:
        raise ReleaseError(
            "Without base_model among the facts, the chat template cannot be compared with the base model's.",
            hint="Name it, or say under template_change where the template comes from.",
        )
    with tempfile.TemporaryDirectory() as temporary:
        api = hub_client.client()
        fetch = {"local_dir": temporary, "allow_patterns": [chat_templates.FILE, "tokenizer_config.json"]}
        try:
            hub_client.call(lambda: api.snapshot_download(base, **fetch), attempts=2)
        except (ReleaseError, NetworkError, CheckpointError) as error:
            raise NetworkError(
                f"The chat template of {base} could not be fetched: {error.message}",
                hint="Fetch again later, or say under template_change where the template comes from.",
            ) from error
        return chat_templates.template_of(Path(temporary))


def _card(facts: Facts, name: str, tag: str, cells: Sequence[Cell]) -> str:
    document: dict[str, Any] = {
        "license": facts.license,
        "language": facts.language,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
    }
    if facts.base_model:
        document |= {"base_model": [facts.base_model], "base_model_relation": "finetune"}
    values = {
        "title": facts.title or name.rpartition("/")[2],
        "facts": facts,
        "name": name,
        "tag": tag,
        "published": bool(HUB_ID.fullmatch(name)),
        "notices": notices(cells),
        "tables": [_table(cells, origin) for origin in ("measured", "reported")],
    }
    body = card_templates.render(TEMPLATE, values)
    return f"---\n{yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)}---\n\n{body}"


def _table(cells: Sequence[Cell], origin: str) -> Table:
    header = ["model", "set", "metric", "value", "n", "decoding", "judge", "baseline", "note"]
    rows = []
    for entry in (entry for entry in cells if entry.origin == origin):
        number = [shown(entry), entry.count if entry.n else "–"]
        rows.append(
            [entry.row, entry.table, entry.metric, *number, entry.decoding, entry.judge, entry.baseline, entry.note]
        )
    return Table(f"Results: {origin}", header, rows)
