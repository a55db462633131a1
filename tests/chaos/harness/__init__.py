"""Every way a run can fail, done to a real one: `python -m tests.chaos.harness`, and what must be left afterwards."""
