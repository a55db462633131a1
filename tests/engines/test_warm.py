"""Which callers one trainer may serve."""

from tasks.engines import warm
from tasks.engines.turns import Turn


def test_a_trainer_is_told_apart_by_what_means_something_to_it_not_by_its_callers_servers(monkeypatch):
    turn = Turn(("GPU-a",), gpus=True)
    known = warm.trainer_environment(turn)
    for name in ("WANDB_SERVICE", "WANDB_MODE", "PREFECT_API_URL", "PWD"):
        monkeypatch.setenv(name, "of this caller")
    assert warm.trainer_environment(turn) == known
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert warm.trainer_environment(turn) != known
