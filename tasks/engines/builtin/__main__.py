"""`python -m tasks.engines.builtin JOB.json`: one rank under torchrun, or all ranks of a job on this host.

Exit status: 0 done, 75 stopped on request after a checkpoint (run again to resume), 65 a parameter or a damaged file must be
changed, 69 the GPU or the run is in use, 70 another host has taken the run over, 74 nothing can be written, 77 a store refuses the
credential, 1 anything else. The sentence to show to a person is the last line of the error output and, for all but 0 and 75, in
`failure.json` beside the job.
"""

import logging
import os
import sys
from pathlib import Path

from tasks.engines.builtin.attempt import attempt
from tasks.engines.builtin.distributed import join
from tasks.engines.builtin.outcome import outcome
from tasks.engines.ranks import StopRequest, began, die_with_launcher, is_rank, launch
from tasks.records.job import DONE, INPUT, RESUME, Job


def main(job_file: Path) -> int:
    """Run this rank, or start the ranks when there are several and none was started. Returns the exit status."""
    job = Job.read(job_file)
    stop = StopRequest()
    stop.listen()
    if not die_with_launcher():
        return RESUME
    ranks = job.experiment.training.gpus
    if ranks > 1 and not is_rank():
        return launch([sys.executable, "-m", "tasks.engines.builtin", str(job_file)], ranks, stop=stop.asked)
    world = join(job.experiment.training.device)
    logging.getLogger().setLevel(logging.INFO if world.leads else logging.WARNING)
    return DONE if attempt(job, world, stop, began()) else RESUME


def entry() -> int:
    """Parse the command line, run, and turn every end into an exit status."""
    if len(sys.argv) != 2:
        print("usage: python -m tasks.engines.builtin JOB.json", file=sys.stderr)
        return INPUT
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO, stream=sys.stderr)
    job_file = Path(sys.argv[1])
    return outcome(job_file, lambda: main(job_file))


if __name__ == "__main__":
    status = entry()
    logging.shutdown()
    # Not sys.exit: a copy to a remote root that was given up must not hold the process, nor a rank that hangs in a collective.
    os._exit(status)
