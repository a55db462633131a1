"""The sample of the local stack: built from what is installed here, and put where `compare/demo` reads it.

`python -m infra.local.publish` does both for the stack in FABRATING_HOME: on a new stack in the background, since it takes a while.
"""

import sys

from infra.local import azurite, lifecycle, stack
from infra.local.sample_data import build_sample, is_built
from infra.local.stack import SAMPLE_CONTAINER, SAMPLE_NAME, Say, Stack
from tasks.store.artifact import Artifact


def publish(running: Stack, sample: Artifact, say: Say) -> None:
    """Put the sample where the stack's `compare/demo` reads it; blobs that are there already stay as they are."""
    facts = sample.facts
    megabytes = sum(record.bytes for record in sample.manifest.files) / 1e6
    what = f"{facts['documents']:,} documents, {megabytes:.1f} MB"
    if running.azurite_port:
        written = azurite.upload(running.azurite_port, SAMPLE_CONTAINER, SAMPLE_NAME, sample.path, running.store_key)
        state = "written" if written else "already there"
        say(f"Sample: {what}, {state} at {running.sample} (Azurite)")
    else:
        say(f"Sample: {what} in {running.sample}")


def publish_soon(running: Stack, say: Say) -> None:
    """Publish the sample, in a process of the stack if it has to be built first."""
    if is_built(running.home):
        publish(running, build_sample(running.home), say)
        return
    lifecycle.start(running, "sample", [sys.executable, "-m", "infra.local.publish"])
    say(
        f"The sample of compare/demo is built in the background, in a minute or two: see {running.home}/logs/sample.log"
    )


def main() -> None:
    """Build and publish the sample of the stack in FABRATING_HOME."""
    running = stack.load(stack.default_home())
    assert running is not None, "a stack has started this"
    publish(running, build_sample(running.home), print)


if __name__ == "__main__":
    main()
