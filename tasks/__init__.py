"""What each step of an experiment does, as plain functions.

One folder a room; rooms know their neighbours by the artifacts on disk, not by import. Every room imports `tasks.spec`
(typed parameters), `tasks.errors` and `tasks.store` (URLs, artifacts). Prefect enters only through each room's `steps.py`.
"""

from tasks.escaping import log_in_lines

log_in_lines()
