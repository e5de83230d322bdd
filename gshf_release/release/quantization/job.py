"""A function call in another environment: `python -m gshf_release.release.quantization.job FOLDER`.

The folder holds `call.json` with the function and its JSON arguments, and gets `answer.json`; big arrays travel as files.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from gshf_release import environments
from gshf_release.errors import EngineError, GshfError, Interrupted, last_complaint
from gshf_release.run import interrupt

CALL, ANSWER = "call.json", "answer.json"
POLL_SECONDS = 0.1
PATIENCE_SECONDS = 20.0
MODULES = ("gshf_release.release.quantization.llama_cpp_work", "gshf_release.release.quantization.compressed_work")


def call(environment: str, function: str, threads: int, /, **arguments: Any) -> Any:
    """Return what a function of another environment returns.

    Args:
        environment: A name that `gshf-release setup` takes.
        function: `module:function`, the module one of this package's `*_work`.
        threads: CPU threads of that process.
        arguments: JSON values.

    Raises:
        EngineError: The environment is not set up, or the work failed; with its own reason.
        Interrupted: This process was asked to stop.
    """
    import subprocess

    found = environments.require(environment)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        document = {"function": f"gshf_release.release.quantization.{function}", "arguments": arguments}
        (folder / CALL).write_text(json.dumps(document), encoding="utf-8")
        with (folder / "log").open("w+", encoding="utf-8", errors="replace") as log:
            process = subprocess.Popen(
                found.command(__name__, str(folder)),
                env=found.variables() | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                while process.poll() is None:
                    interrupt.sleep(POLL_SECONDS)
            finally:
                _end(process)
        if (folder / ANSWER).is_file():
            answer = json.loads((folder / ANSWER).read_text(encoding="utf-8"))
            if "error" not in answer:
                return answer["value"]
            if answer["exit_code"] == Interrupted.exit_code:
                raise Interrupted(interrupt.MESSAGE)
            raise EngineError(answer["error"])
        interrupt.check()  # Ctrl-C reaches it too
        output = (folder / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise EngineError(f"{function} in the environment {environment!r} failed: {last_complaint(output)}.")


def main(folder: Path) -> int:
    """Do the call; a known error goes into the answer, anything else onto stderr."""
    document = json.loads((folder / CALL).read_text(encoding="utf-8"))
    module, _, name = document["function"].partition(":")
    if module not in MODULES:
        raise ValueError(f"{module} is no work of another environment")
    code = 0
    try:
        with interrupt.stop_gently():
            answer = {"value": getattr(importlib.import_module(module), name)(**document["arguments"])}
    except GshfError as error:
        answer = {"error": str(error), "exit_code": error.exit_code}
        code = error.exit_code
    temporary = folder / f".{ANSWER}"
    temporary.write_text(json.dumps(answer), encoding="utf-8")
    temporary.replace(folder / ANSWER)
    return code


def _end(process: Any) -> None:
    if process.poll() is None:
        import subprocess

        process.terminate()
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
