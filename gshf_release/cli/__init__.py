"""The command line: `gshf-release COMMAND`. One file a command; heavy imports happen inside the command that needs them."""

from __future__ import annotations

import importlib
import io
import os
import shlex
import sys

import click

from gshf_release import __version__
from gshf_release.data.printable import printable

LONGEST_REASON = 300
"""Characters of an unforeseen error's own text that are shown."""
COMMANDS = {
    "init": "Write a small recipe and editable copies of the assets.",
    "prefetch": "Bring everything a recipe needs from networks into the cache.",
    "prompts": "Let a model write the prompts, filtered and decontaminated.",
    "train": "Run the loop: sample, score, choose pairs, optimise, measure.",
    "eval": "Let every policy answer and compare it with the base.",
    "score": "Score stored AlpacaEval 2 or MT-Bench judgments.",
    "calibrate": "Find how far a judge stands from the official one on stored judgments.",
    "reproduce": "Check published claims, rung by rung.",
    "publish": "Make the release and bring it to a folder or to the Hub.",
    "quantize": "Quantize released weights and measure what each file loses.",
    "card": "Print the model card of a run.",
    "report": "Print the results of a run as tables.",
    "samples": "Show a prompt with the answers of every policy.",
    "verify": "Recompute every hash and every number of a run or release.",
    "reward": "Train a reward model, score answers with one, or compare it with judgments.",
    "adopt": "Make a run of what other tools left behind.",
    "status": "Show what a run has finished and how long it took.",
    "prune": "Remove weights that the recipe does not keep.",
    "setup": "Make an isolated environment: vllm, quant or llama-cpp.",
    "doctor": "Show what this machine can do, and check a recipe.",
}


class Commands(click.Group):
    """Loads a command's module only when it is called, so that --help is fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of a user's work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one command, or None if there is no such."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"gshf_release.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@click.version_option(__version__, prog_name="gshf-release")
def cli() -> None:
    """From a recipe to a run, from a run to results, from results to a release.

    \b
    Examples:
      gshf-release prefetch quickstart
      gshf-release train quickstart
      gshf-release eval runs/quickstart
      gshf-release publish runs/quickstart --out release-out
    """


def main() -> None:
    """Run the command line; a known error is one line on stderr and its own exit code."""
    from gshf_release.data.file_notices import heard_by
    from gshf_release.errors import GshfError, Interrupted

    arguments = shlex.join(sys.argv[1:])
    _protect()
    try:
        with heard_by(_show_notice):
            cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(_interrupted(arguments))
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(file=shown)
        click.echo(printable(shown.getvalue()), err=True, nl=False)
        sys.exit(error.exit_code)
    except (Interrupted, KeyboardInterrupt):
        sys.exit(_interrupted(arguments))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except GshfError as error:
        _show_traceback()
        click.secho("Error: ", fg="red", err=True, nl=False)
        click.echo(printable(error), err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        _show_traceback()
        click.echo(printable(f"Error: {error.filename or 'the system'}: {error.strerror or error}"), err=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        _show_traceback()
        click.echo(f"Error: {error.name} is not installed. Install: pip install 'gshf-release[all]'", err=True)
        sys.exit(1)
    except Exception as error:
        _show_traceback()
        click.echo(printable(f"Error: {_unforeseen(error)}"), err=True)
        sys.exit(1)


def _protect() -> None:
    """Keep others on this machine from writing what a command writes, and files of the current folder from being imported.

    Python puts the current folder first on the path of every `python -m`: the worker of a command that is given inside a folder
    from elsewhere would import a `torch.py` that lies there.
    """
    os.umask(os.umask(0o077) | 0o022)
    os.environ["PYTHONSAFEPATH"] = "1"  # of the processes that are started from here


def _unforeseen(error: Exception) -> str:
    """Return one line about an error that no code foresaw: what, where, and what to report."""
    import traceback
    from pathlib import Path

    from gshf_release.release.secrets import redact

    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "gshf_release" in Path(frame.filename).parts]
    place = f" in {Path(own[-1].filename).name}, line {own[-1].lineno}" if own else ""
    text = redact(" ".join(str(error).split()))[:LONGEST_REASON] or "no reason given"
    return (
        f"{type(error).__name__}{place}: {text}. "
        "This is a fault of gshf-release or of an input it does not foresee; GSHF_DEBUG=1 shows where, for a report."
    )


def _show_notice(text: str) -> None:
    click.secho(printable(text), fg="yellow", err=True)


def _show_traceback() -> None:
    """With `GSHF_DEBUG`, print where the error came from; without the secrets that a server's answer may repeat."""
    if os.environ.get("GSHF_DEBUG"):
        import traceback

        from gshf_release.release.secrets import redact

        click.echo(printable(redact(traceback.format_exc())), err=True)


def _interrupted(arguments: str) -> int:
    click.echo(f"\nStopped. Nothing finished is lost; to go on: gshf-release {arguments}", err=True)
    return 130
