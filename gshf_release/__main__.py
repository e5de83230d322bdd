"""`python -m gshf_release` is `gshf-release`."""

from gshf_release.cli import main

main()
