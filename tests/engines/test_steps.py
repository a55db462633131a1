"""Which ends of a training Prefect tries again."""

import pytest
from prefect.states import Failed

from tasks.engines.steps import again
from tasks.errors import BusyError, DiskError, InputError, InterruptedRun, LostProcessError, TrainingError


@pytest.mark.parametrize(
    ("error", "tried_again"),
    [
        (LostProcessError("killed"), True),
        (OSError("the store is away"), True),
        (TrainingError("no number"), False),
        (DiskError("no space"), False),
        (InterruptedRun("asked to stop"), False),
        (BusyError("GPU 0"), False),
        (InputError("wrong"), False),
    ],
)
def test_only_what_another_attempt_can_cure_is_tried_again(error, tried_again):
    assert again(None, None, Failed(data=error)) is tried_again
