"""The training loop: rows in, steps, and now and then a report of the loss, a checkpoint, an evaluation.

Losses stay on the device until the next report (every 10 steps, and where a checkpoint or an evaluation is due), so that the
host never waits for the GPU in between.
"""

import logging
import math
import time
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch

from tasks.engines.builtin.checkpoint import Checkpoints
from tasks.engines.builtin.distributed import World
from tasks.engines.builtin.evaluation import EncodedHoldout, evaluate
from tasks.engines.builtin.rows import RowFeed
from tasks.engines.builtin.schedule import Rates, schedule
from tasks.engines.builtin.setup import Learner, RunShape, snapshot
from tasks.engines.ranks import StopRequest
from tasks.errors import TrainingError
from tasks.records.devices import peak_flops
from tasks.records.metrics import MetricsLog
from tasks.records.scaling import flops_per_token
from tasks.records.scores import scores_table, summarize
from tasks.spec import Training

log = logging.getLogger(__name__)
REPORT_EVERY = 10
"""Steps between two reports of the loss: each is a synchronization with the device."""


class Interval:
    """The steps since the last report: their losses on the device, their rates, and how long they took."""

    def __init__(self, device: torch.device):
        self._losses = torch.zeros(REPORT_EVERY, dtype=torch.float32, device=device)
        self._rates: list[Rates] = []
        self._began = time.perf_counter()

    def __len__(self) -> int:
        return len(self._rates)

    def open_step(self, rates: Rates) -> None:
        self._rates.append(rates)

    def add(self, loss: torch.Tensor) -> None:
        """Add a micro-batch's mean loss to the step that is open; no synchronization."""
        self._losses[len(self._rates) - 1] += loss

    def close(self, world: World, parts: int) -> tuple[list[float], list[Rates], float]:
        """Mean loss of each step over `parts` micro-batches of all ranks, rates, and seconds per step. Starts over."""
        losses = (world.sum(self._losses[: len(self)].clone()) / parts).tolist()
        rates, seconds = self._rates, (time.perf_counter() - self._began) / max(1, len(self))
        self._losses.zero_()
        self._rates = []
        self._began = time.perf_counter()
        return losses, rates, seconds

    def restart_clock(self) -> None:
        """Leave out what happened since the last step: evaluations and checkpoints are no part of the training speed."""
        self._began = time.perf_counter()


@dataclass
class Loop:
    """One attempt at a run, from the step that its checkpoint holds to the last one, or to a request to stop."""

    training: Training
    shape: RunShape
    learner: Learner
    holdout: EncodedHoldout
    world: World
    checkpoints: Checkpoints
    metrics: MetricsLog
    stop: StopRequest
    evaluated: set[int]
    """Steps whose evaluation is in the metrics already."""
    began: float
    """When the attempt was started, as `time.time` has it."""

    def __post_init__(self) -> None:
        self._saved: int | None = None
        device = self.world.device
        peak = peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        self._flops = flops_per_token(self.shape.config)
        self._peak = peak * self.world.size if peak else None

    def run(self, start: int) -> pa.Table | None:
        """Train from step `start` (finished steps) to the end. Returns the holdout's scores, or None when asked to stop.

        Raises TrainingError at a loss that is no number, DiskError when a checkpoint cannot be written.
        """
        steps, batch = self.shape.plan.iterations, self.shape.batch
        self._saved = start if start else None
        feed = RowFeed(self.shape.rows, batch, start, steps, self.world.device)
        interval = Interval(self.world.device)
        try:
            if not self._evaluate_if_due(start):
                return self._interrupt(start)
            interval.restart_clock()
            for step in range(start, steps):
                if self.world.any(self.stop.asked()):
                    self._report(interval, step, feed)
                    return self._interrupt(step)
                self._step(step, feed, interval)
                done = step + 1
                save = done % self.training.save_every == 0 or done == steps
                judge = done % self.training.eval_every == 0
                if save or judge or len(interval) == REPORT_EVERY or step == start:
                    self._report(interval, done, feed, first=step == start)
                if step == start:
                    self._tell_first_step(done)
                if save:
                    self._save(done)
                if judge and done != steps and not self._evaluate_if_due(done):
                    return self._interrupt(done)
                if save or judge or step == start:
                    interval.restart_clock()
        finally:
            feed.close()
        scores = self._evaluate(steps)
        return scores if scores is not None else self._interrupt(steps)

    def _step(self, step: int, feed: RowFeed, interval: Interval) -> None:
        compute, optimizer, batch = self.learner.compute, self.learner.optimizer, self.shape.batch
        rates = schedule(step, self.shape.plan)
        interval.open_step(rates)
        optimizer.zero_grad()
        scale = 1.0 / (batch.accumulation * batch.world)
        for micro in range(batch.accumulation):
            inputs, targets = feed.next()
            if micro == batch.accumulation - 1:
                optimizer.start_reduce()
            interval.add(compute.backward(inputs, targets, scale))
        optimizer.step(*rates)

    def _report(self, interval: Interval, done: int, feed: RowFeed, first: bool = False) -> None:
        """Write the metrics of the steps since the last report. Raises TrainingError at a loss that is no number."""
        if not len(interval):
            return
        batch, tokens = self.shape.batch, self.shape.plan.batch_tokens
        losses, rates, seconds = interval.close(self.world, batch.accumulation * batch.world)
        speed: dict[str, Any] = {}
        if not first:  # the first step of an attempt compiles and warms up
            speed = {
                "tokens_per_second": round(tokens / seconds, 1),
                "step_seconds": round(seconds, 6),
                "data_wait": round(feed.waited / len(losses), 6),
                "mfu": round(self._flops * tokens / seconds / self._peak, 5) if self._peak else None,
            }
        if self.world.device.type == "cuda":
            speed["gpu_memory_bytes"] = torch.cuda.max_memory_allocated(self.world.device)
        feed.waited = 0.0
        lines = []
        for index, (loss, rate) in enumerate(zip(losses, rates, strict=True)):
            step = done - len(losses) + index
            if not math.isfinite(loss):
                self.metrics.write_all(lines)
                raise TrainingError(self._bad_loss(step, loss))
            values = {"tokens": (step + 1) * tokens, "loss": loss, "lr_scale": rate.lr_scale, **speed}
            lines.append(("train", step + 1, values))
        self.metrics.write_all(lines)
        self.checkpoints.check()
        if self.world.leads:
            rest = f", {speed['tokens_per_second']:,.0f} tokens/s" if not first else ""
            log.info("step %d of %d, loss %.4f%s", done, self.shape.plan.iterations, losses[-1], rest)

    def _tell_first_step(self, done: int) -> None:
        waited = time.time() - self.began
        self.metrics.write("event", done, event="first_step", seconds=round(waited, 2))
        log.info("first step %.1f s after the start", waited)

    def _bad_loss(self, step: int, loss: float) -> str:
        rows = self.shape.batch.rows
        read = self.shape.rows.chosen[step * rows : (step + 1) * rows]
        return (
            f"The loss of step {step + 1} is {loss} on a batch from rows {read[0]:,} to {read[-1]:,} of the packed arm: look at "
            f"those rows, or train with another seed or precision; {self.checkpoints.describe_last()}."
        )

    def _save(self, done: int) -> None:
        if done == self._saved:
            return
        model, shard = snapshot(self.learner, self.world.leads)
        rows = done * self.shape.batch.rows
        self.checkpoints.save(model, shard, {"step": done, "rows": rows})
        self._saved = done
        self.metrics.write("event", done, event="checkpoint", rows=rows)

    def _interrupt(self, done: int) -> None:
        """Keep what was learned before leaving."""
        log.info("asked to stop after step %d", done)
        if done:
            self._save(done)
        self.metrics.write("event", done, event="interrupted")

    def _evaluate_if_due(self, done: int) -> bool:
        """Evaluate at `done` unless that is recorded. False when it was broken off by a request to stop."""
        due = done and done % self.training.eval_every == 0 and done != self.shape.plan.iterations
        return not due or done in self.evaluated or self._evaluate(done) is not None

    def _evaluate(self, done: int) -> pa.Table | None:
        length = self.shape.config.sequence_len
        nats = evaluate(
            self.learner.compute.losses,
            self.holdout,
            length,
            self.shape.batch.micro * length,
            self.world,
            self.stop.asked,
        )
        if nats is None:
            return None
        scores = scores_table(nats, self.holdout.documents)
        summary = summarize(scores)
        if done not in self.evaluated:
            self.metrics.write("eval", done, tokens=done * self.shape.plan.batch_tokens, **summary)
            self.evaluated.add(done)
        if self.world.leads:
            log.info("step %d, %.4f bits per byte on the holdout", done, summary["bpb"])
        return scores
