"""`gshf-release publish RUN|FOLDER`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from gshf_release.cli.terminal import Terminal, json_option, print_json, profile_option, say, show, shown_path, size


@click.command(name="publish")
@click.argument("run", metavar="RUN|FOLDER", type=click.Path(path_type=Path))
@click.option("--to", "repository", metavar="OWNER/NAME", help="Repository on the Hub.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the release into this folder instead.")
@click.option("--dry-run", is_flag=True, help="With --to: show what would be sent; send and change nothing.")
@click.option("--only", type=click.Choice(["card", "weights", "quantizations"]), help="Send only this part.")
@click.option("--pr", is_flag=True, help="Propose it as a pull request, for a repository of others; no tags.")
@click.option("--public", is_flag=True, help="Make the repositories and their collection public [private].")
@click.option("--no-collection", is_flag=True, help="Make no collection of the release's repositories.")
@click.option("--sign", type=click.Path(path_type=Path), metavar="KEY", help="Sign with this Ed25519 private key.")
@click.option("--facts", metavar="FILE", help="FOLDER only: YAML facts for its card (license, base_model, ...).")
@click.option("--results", type=click.Path(path_type=Path), help="FOLDER only: result cells for its card.")
@click.option("--tag", default="v1", show_default=True, help="FOLDER only: the tag of its one release.")
@profile_option
@json_option
def command(run: Path, repository: str | None, out: Path | None, profile: str, as_json: bool, **options: Any) -> None:
    """Make the release of RUN: BF16 weights of every iteration, GGUF, data sets, cards, manifests; then write or push it.

    Each iteration becomes one commit with the tag iter-N; checksums are compared with the Hub's afterwards. The token comes
    from HF_TOKEN or `hf auth login`. The same command again sends only what is missing.

    A FOLDER is a checkpoint made by another tool; it is checked and becomes one release.

    \b
    Examples:
      gshf-release publish runs/quickstart --out release-out
      gshf-release publish runs/quickstart --to me/my-model --dry-run
      gshf-release publish runs/quickstart --to me/my-model --sign ~/.ssh/id_ed25519
      gshf-release publish runs/quickstart --to me/my-model --only card
      gshf-release publish outputs/checkpoint-500 --to me/other --facts facts.yaml --results results.json
    """
    from gshf_release.errors import ReleaseError
    from gshf_release.release import manifest, signing
    from gshf_release.release.rules import require_own
    from gshf_release.release.stages import require_training
    from gshf_release.release.staging import signed
    from gshf_release.run.directory import DOCUMENT, RunDirectory

    if (repository is None) == (out is None):
        raise click.UsageError("Say where to: either --to OWNER/NAME or --out DIR.")
    if out is not None and any(options[name] for name in ("dry_run", "only", "pr", "public", "no_collection")):
        raise click.UsageError("--dry-run, --only, --pr, --public and --no-collection go with --to.")
    if options["sign"] is not None:
        signing.public_line(options["sign"])  # a key that cannot be used is said before any work
    if options["pr"] and options["only"] == "card":
        raise click.UsageError("--only card changes main; it does not go with --pr.")
    foreign = not (run / DOCUMENT).is_file() and (run / "config.json").is_file()
    if not foreign and (options["facts"] or options["results"]):
        raise click.UsageError(
            "--facts and --results are for a checkpoint FOLDER; a run has release.facts and its results."
        )
    if foreign:
        _publish_checkpoint(run, repository, out, as_json, options)
        return
    written = (path for path in run.glob(f"*/*/{manifest.NAME}") if path.with_name("README.md").is_file())
    if not (run / DOCUMENT).is_file() and any(written):
        raise ReleaseError(
            f"{run} is a release that --out wrote; its cards name no owner on the Hub.",
            hint="Publish the run itself: gshf-release publish RUN --to OWNER/NAME",
        )
    require_own(RunDirectory.open(run))
    require_training(RunDirectory.open(run))
    _warn(run)
    if options["dry_run"]:
        with _tried(run, str(repository), profile) as (release, name), signed(release, name, options["sign"]) as staged:
            _push(staged, str(repository), as_json, options)
        return
    release, name = _make(run, repository, profile)
    if out is not None:
        _write(release, name, out, options["sign"], as_json)
        return
    with signed(release, name, options["sign"]) as staged:
        _push(staged, str(repository), as_json, options | {"journal": RunDirectory.open(run).log})


def _warn(run: Path) -> None:
    """Say first what weakens the run's numbers; its cards say the same."""
    from gshf_release.data.results import read_cells
    from gshf_release.report.notices import notices

    results = run / "results.json"
    for line in notices(read_cells(results)) if results.is_file() else []:
        say(line)


@contextlib.contextmanager
def _tried(run: Path, repository: str, profile: str) -> Iterator[tuple[Path, str]]:
    """Yield what `_make` returns and leave the run as it is: where the release is not there yet, a copy of the run makes it."""
    from gshf_release import pipeline
    from gshf_release.release.stages import repository_name
    from gshf_release.release.staging import copied_run
    from gshf_release.run.directory import RunDirectory

    directory = RunDirectory.open(run)
    pipeline.require_evaluated(directory, repository)
    if pipeline.is_released(directory, repository):
        yield run / "release", repository_name(directory.recipe)
        return
    with copied_run(run) as copy:
        yield _make(copy, repository, profile)


def _make(run: Path, repository: str | None, profile: str) -> tuple[Path, str]:
    """Bring the release stages to their finished state; return the run's release folder and the release's name in it."""
    from gshf_release import pipeline
    from gshf_release.models.checkpoints import prepare
    from gshf_release.recipe import profile as profiles
    from gshf_release.release.stages import repository_name
    from gshf_release.run.directory import RunDirectory

    directory = RunDirectory.open(run)
    where = profiles.load(profile)
    prepare(where)
    pipeline.release(directory, where, repository=repository, observer=Terminal(directory))
    return run / "release", repository_name(directory.recipe)


def _write(release: Path, name: str, out: Path, key: Path | None, as_json: bool) -> None:
    from gshf_release.release import signing
    from gshf_release.release.folders import copy_release

    folders = copy_release(release, name, out)
    if key is not None:
        for folder in folders:
            signing.sign(folder, key)
    if as_json:
        print_json({"folders": [str(folder) for folder in folders]})
        return
    for folder in folders:
        show(f"{shown_path(folder)}  {size(sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()))}")
    say(
        f"Release: {shown_path(out)}\nNext: gshf-release publish {shown_path(release.parent)} --to OWNER/NAME --dry-run"
    )


def _publish_checkpoint(
    folder: Path, repository: str | None, out: Path | None, as_json: bool, options: dict[str, Any]
) -> None:
    from gshf_release.adoption import checkpoint as adopted_checkpoint
    from gshf_release.hub import publish as hub
    from gshf_release.release import rules, signing
    from gshf_release.release.staging import temporary_beside

    if options["facts"] is None:
        raise click.UsageError("A checkpoint needs --facts FILE: its card cannot be written without a licence.")
    if options["only"] not in (None, "card"):
        raise click.UsageError(f"--only {options['only']} is for a run; the release of a checkpoint has one part.")
    name = repository or folder.resolve().name
    rules.check_name(name.rpartition("/")[2], "the name of a release")
    rules.check_name(options["tag"], "a tag")
    if repository is not None:
        rules.check_repository(repository)
    with temporary_beside(folder) as temporary:
        target = (temporary if out is None else out) / name.rpartition("/")[2] / options["tag"]
        left_out = adopted_checkpoint.adopt_checkpoint(
            folder, target, name=name, facts=options["facts"], results=options["results"]
        )
        if left_out:
            say(f"Left out: {', '.join(left_out)}.")
        if options["sign"] is not None:
            signing.sign(target, options["sign"])
        if out is not None:
            print_json({"folders": [str(target)]}) if as_json else show(shown_path(target))
            return
        hub.check_folder(target)
        _send([hub.FolderCommit(target, str(repository), options["tag"], main=True)], as_json, options)


def _push(release: Path, repository: str, as_json: bool, options: dict[str, Any]) -> None:
    from gshf_release.hub import publish as hub

    wanted = hub.parts(release, repository)
    if options["only"] in ("weights", "quantizations"):
        weights = options["only"] == "weights"
        models = [part for part in wanted if part.repo_type == "model"]
        wanted = [part for part in models if (part.repository == repository) == weights]
    if not wanted:
        raise click.UsageError(f"This release has no {options['only']}.")
    _send(wanted, as_json, options, collection=None if options["no_collection"] else repository)


def _send(wanted: list[Any], as_json: bool, options: dict[str, Any], collection: str | None = None) -> None:
    from gshf_release.hub import client as hub_client
    from gshf_release.hub import publish as hub
    from gshf_release.hub.card_update import plan_card, publish_card
    from gshf_release.hub.dry_run import plan
    from gshf_release.hub.pull_request import propose

    log = options.get("journal") or (lambda event, **facts: None)

    def report(line: str) -> None:
        say(line)
        log("publishing", step=line)

    api = hub_client.client()
    if options["dry_run"]:
        apart = options["pr"] or options["only"] == "card"  # neither touches the collection
        if options["pr"]:
            wanted = [replace(part, tag=None) for part in wanted]  # a pull request sets no tags
        plans = plan_card(api, wanted) if options["only"] == "card" else [plan(api, part) for part in wanted]
        _show_plan(plans, as_json, None if apart else collection)
    elif options["pr"]:
        found = propose(api, wanted, report=report)
        after = "After the merge, the same command without --pr sets the tags."
        print_json({"pull_requests": found}) if as_json else show("\n".join([*found, after]))
    elif options["only"] == "card":
        commits = publish_card(api, wanted, report=report)
        print_json({"commits": commits}) if as_json else show("The cards on main are up to date; tags stay.")
    else:
        commits = hub.publish(api, wanted, public=options["public"], report=report, collection=collection)
        links = [part.label for part in wanted]
        log("published", commits=dict(zip(links, commits, strict=True)))
        if as_json:
            print_json({"commits": dict(zip(links, commits, strict=True))})
            return
        show(f"Published {', '.join(links)} ({'public' if options['public'] else 'private unless it existed'}).")


def _show_plan(plans: list[Any], as_json: bool, collection: str | None) -> None:
    from gshf_release.hub.collection import title_of
    from gshf_release.hub.publish import members_of

    members = [repository for repository, _ in members_of([found.part for found in plans])]
    title = title_of(collection) if collection is not None and len(members) > 1 else None
    if as_json:
        rows = [
            {"repository": found.part.repository, "tag": found.part.tag, "path": entry.path}
            | {"size": entry.size, "status": entry.status}
            for found in plans
            for entry in found.entries
        ]
        tags = [
            {
                "repository": found.part.repository,
                "tag": found.part.tag,
                "state": found.tag,
                "message": found.tag_message,
            }
            for found in plans
            if found.part.tag
        ]
        cards = {found.part.label: found.card for found in plans if found.card}
        document = {"dry_run": rows, "tags": tags, "card_diff": cards, "bytes": sum(found.sent for found in plans)}
        print_json(document | {"collection": None if title is None else {"title": title, "repositories": members}})
        return
    for found in plans:
        part = found.part
        show(f"[dry run] {part.repository}, {f'tag {part.tag}' if part.tag else 'main'}: {size(found.sent)} to send")
        for entry in found.entries:
            show(f"  {entry.status:14} {size(entry.size):>10}  {entry.path}")
        if part.tag:
            show(f"  tag {part.tag}: {found.tag} ({found.tag_message})")
        if found.card:
            show("  the card changes:")
            show("\n".join(f"    {line}" for line in found.card.split("\n")))
    if title is not None:
        show(f"[dry run] collection {title}: {', '.join(members)}")
    show(f"[dry run] {size(sum(found.sent for found in plans))} in all; nothing was sent.")
