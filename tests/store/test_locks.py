"""Locks that wait. Those that give up are tried with the trainer, which holds them: see `tests/engines`."""

import os
import threading

from tasks.store.locks import locked


def test_who_waits_for_a_lock_says_whose_it_is_and_gets_it_next(tmp_path):
    path, order, waits = tmp_path / "folder" / "x.lock", [], threading.Event()

    def say(message: str) -> None:
        order.append(message)
        waits.set()

    def second() -> None:
        with locked(path, say):
            order.append("second")

    other = threading.Thread(target=second)
    with locked(path):
        other.start()
        assert waits.wait(10)
        order.append("first")
    other.join(10)
    said, *rest = order
    assert said.startswith(f"Waiting for x.lock, in use by process {os.getpid()} on ")
    assert rest == ["first", "second"]


def test_a_free_lock_is_taken_in_silence_and_can_be_taken_again(tmp_path):
    said = []
    for _ in range(2):
        with locked(tmp_path / "x.lock", said.append):
            pass
    assert said == []
