"""`gshf-release publish RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gshf_release.cli.terminal import Terminal, json_option, print_json, profile_option, say, shown_path, size


@click.command(name="publish")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--to", "repository", metavar="OWNER/NAME", help="Repository on the Hub.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the release into this folder instead.")
@click.option("--dry-run", is_flag=True, help="With --to: show what would be sent; send nothing.")
@click.option("--public", is_flag=True, help="Make the repositories public [private].")
@profile_option
@json_option
def command(
    run: Path, repository: str | None, out: Path | None, dry_run: bool, public: bool, profile: str, as_json: bool
) -> None:
    """Make the release of RUN: BF16 weights of every iteration, GGUF, cards, manifests; then write or push it.

    Each iteration becomes one commit with the tag iter-N; checksums are compared with the Hub's afterwards. The token comes
    from HF_TOKEN or `hf auth login`. The same command again sends only what is missing.

    \b
    Examples:
      gshf-release publish runs/quickstart --out release-out
      gshf-release publish runs/quickstart --to me/my-model --dry-run
      gshf-release publish runs/quickstart --to me/my-model
    """
    from gshf_release import pipeline
    from gshf_release import profile as profiles
    from gshf_release.checkpoints import prepare
    from gshf_release.release.stages import repository_name
    from gshf_release.run.directory import RunDirectory

    if (repository is None) == (out is None):
        raise click.UsageError("Say where to: either --to OWNER/NAME or --out DIR.")
    directory = RunDirectory.open(run)
    where = profiles.load(profile)
    prepare(where)
    pipeline.release(directory, where, repository=repository, observer=Terminal(directory))
    if out is not None:
        _write(run / "release", repository_name(directory.recipe), out, as_json)
    else:
        _push(run / "release", str(repository), dry_run, public, as_json)


def _write(release: Path, name: str, out: Path, as_json: bool) -> None:
    from gshf_release.release.folders import copy_release

    folders = copy_release(release, name, out)
    if as_json:
        print_json({"folders": [str(folder) for folder in folders]})
        return
    for folder in folders:
        click.echo(
            f"{shown_path(folder)}  {size(sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()))}"
        )
    say(
        f"Release: {shown_path(out)}\nNext: gshf-release publish {shown_path(release.parent)} --to OWNER/NAME --dry-run"
    )


def _push(release: Path, repository: str, dry_run: bool, public: bool, as_json: bool) -> None:
    from gshf_release.release import hub, hub_client

    api = hub_client.client()
    wanted = hub.parts(release, repository)
    if dry_run:
        _show_plan(api, wanted, as_json)
        return
    commits = hub.publish(api, wanted, public=public, report=say)
    links = [f"{part.repository}@{part.tag or 'main'}" for part in wanted]
    if as_json:
        print_json({"commits": dict(zip(links, commits, strict=True))})
        return
    click.echo(f"Published {', '.join(links)} ({'public' if public else 'private unless it existed'}).")


def _show_plan(api: Any, wanted: list[Any], as_json: bool) -> None:
    from gshf_release.release import hub

    plans = [(part, hub.plan(api, part)) for part in wanted]
    if as_json:
        rows = [
            {
                "repository": part.repository,
                "tag": part.tag,
                "path": entry.path,
                "size": entry.size,
                "status": entry.status,
            }
            for part, entries in plans
            for entry in entries
        ]
        print_json({"dry_run": rows})
        return
    for part, entries in plans:
        sent = sum(entry.size for entry in entries if entry.status != "unchanged")
        click.echo(f"[dry run] {part.repository}, {f'tag {part.tag}' if part.tag else 'main'}: {size(sent)} to send")
        for entry in entries:
            click.echo(f"  {entry.status:14} {size(entry.size):>10}  {entry.path}")
