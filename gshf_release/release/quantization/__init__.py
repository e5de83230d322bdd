"""Quantizations of released weights, each with its loss measured against the BF16 weights that it was made from.

`schemes.py` says what there is and refuses what does not fit, `quantize.py` makes and measures, `losses.py` turns measured
tokens into result cells. What runs in another environment (`llama_cpp_work.py`, `compressed_work.py`) goes through `job.py`.
"""
