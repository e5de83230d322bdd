"""`gshf-release quantize RUN|FOLDER --to SCHEME`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gshf_release.cli.terminal import json_option, print_json, print_table, say, shown_path


@click.command(name="quantize")
@click.argument("run", metavar="RUN|FOLDER", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--to", "wanted", metavar="SCHEME", multiple=True, required=True, help="For example gguf:Q4_K_M; repeat it."
)
@click.option("--out", type=click.Path(path_type=Path), help="Where to write [RUN/quantized/iter-N, FOLDER-quantized].")
@click.option("--iteration", type=click.IntRange(min=1), help="RUN only: of which iteration [the released one].")
@click.option("--text", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="UTF-8 text to measure on.")
@click.option(
    "--calibration", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="GPTQ's own UTF-8 text."
)
@click.option("--seed", default=0, show_default=True, help="FOLDER only: of what GPTQ draws.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads [all].")
@json_option
def command(run: Path, wanted: tuple[str, ...], out: Path | None, as_json: bool, **options: Any) -> None:
    """Quantize the BF16 weights of RUN, or of a checkpoint FOLDER, and measure what each file loses against them.

    Schemes: gguf:BF16, gguf:F16, gguf:Q8_0, gguf:Q6_K, gguf:Q5_K_M, gguf:Q4_K_M, fp8, gptq:W4A16. GGUF is made and measured by
    llama.cpp (`gshf-release setup llama-cpp`), the others by llm-compressor (`gshf-release setup quant`). awq is not run: it
    needs a GPU.

    A RUN is measured on the prompts and answers of its test role, and GPTQ calibrated on those of its validation role. A FOLDER
    needs --text, and for GPTQ --calibration. The same command again makes only what is missing.

    \b
    Examples:
      gshf-release quantize runs/quickstart --to gguf:Q4_K_M --to gguf:Q6_K
      gshf-release quantize outputs/checkpoint-500 --to fp8 --text held-out.txt
    """
    from gshf_release.release.quantization import command as work

    folder, cells = work.quantize(run, wanted, out, say=say, **options)
    if as_json:
        print_json({"folder": str(folder), "cells": [entry.model_dump(exclude_defaults=True) for entry in cells]})
        return
    for table in work.tables(cells):
        print_table(table)
    say(f"Quantized: {shown_path(folder)}")
