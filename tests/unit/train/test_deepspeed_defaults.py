"""The defaults of DeepSpeed from which users of their own JSON are guarded: a test for each says which has changed."""

import inspect

from deepspeed.runtime.constants import GRADIENT_CLIPPING_DEFAULT
from deepspeed.runtime.lr_schedules import WarmupDecayLR, WarmupLR
from deepspeed.runtime.precision_config import DeepSpeedBF16Config

GUARD = "change the guard in ftsys/train/dropin_deepspeed.py or launcher/planner/deepspeed_config.py, then this line"


def test_a_silent_file_clips_at_a_norm_of_1() -> None:
    assert GRADIENT_CLIPPING_DEFAULT == 1.0, GUARD


def test_a_silent_file_skips_a_bf16_step_that_is_not_finite() -> None:
    """A script's own file may be silent: it then has this default. Files of runs always say it."""
    assert DeepSpeedBF16Config(enabled=True).check_grad_overflow is True, GUARD


def test_a_silent_schedule_warms_up_for_1000_steps() -> None:
    for schedule in (WarmupLR, WarmupDecayLR):
        assert inspect.signature(schedule).parameters["warmup_num_steps"].default == 1000, GUARD
