"""The texts that losses are measured on and weights are calibrated on."""

from __future__ import annotations

import pytest

from gshf_release.errors import ReleaseError
from gshf_release.release.quantization.calibration_text import CalibrationText, check_apart

MEASURED = CalibrationText([[1, 2, 3], [4, 5]], "a text", "0")


def test_a_loss_is_not_measured_on_what_the_weights_were_fitted_to() -> None:
    with pytest.raises(ReleaseError, match="look too small"):
        check_apart(MEASURED, CalibrationText([[9, 9], [4, 5]], "another", "1"))


def test_texts_that_only_share_a_beginning_are_apart() -> None:
    check_apart(MEASURED, CalibrationText([[1, 2, 3, 4]], "another", "1"))
