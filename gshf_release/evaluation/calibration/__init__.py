"""What another judge's win rate means: a substitute judge calibrated on stored official judgments.

gshf-release calibrate JUDGE --annotations FILE...
"""

from gshf_release.evaluation.calibration.document import Calibration, calibrate, default_path, load

__all__ = ["Calibration", "calibrate", "default_path", "load"]
