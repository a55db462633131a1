"""Every way a run can fail, done to a real one: `python -m benchmarks.chaos`, and what must be left afterwards."""
