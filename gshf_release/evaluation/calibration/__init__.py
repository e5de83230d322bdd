"""Calibrate a substitute judge on stored official judgments, so that its win rate can be translated.

gshf-release calibrate JUDGE --annotations FILE...
"""

from gshf_release.evaluation.calibration.document import Calibration, calibrate, default_path, load

__all__ = ["Calibration", "calibrate", "default_path", "load"]
