"""Measure what an iteration did to the policy: reward, divergence, lengths and texts, and the verdict in words.

`validation` measures every policy on prompts that are never trained on, `exploration` looks at the responses it was trained
from, `row_metrics` and `explanations` compute cells from rows, `text_statistics` counts, and `verdict` reads cells alone.
"""
