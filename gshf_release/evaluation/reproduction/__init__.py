"""Check published numbers: `evidence` measures them anew, `claims` compares.

gshf-release reproduce fsfairx-zephyr-7b --outputs model_outputs.json
"""
