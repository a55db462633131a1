"""One speed measurement of our trainer's model and optimizer, in its own process: python -m benchmarks.training.ours TASK.

Under torchrun the ranks share the micro-batches of a step; the first one speaks.
"""

import json
import statistics
import sys
import time


def main(task: dict) -> None:
    """The same steps as `upstream.speed`, one line of JSON."""
    import torch

    from tasks.engines.builtin.compute import build_compute, compile_ahead, embedding_dtype
    from tasks.engines.builtin.distributed import join, leave
    from tasks.engines.builtin.model import GPT
    from tasks.engines.builtin.optimizer import build_optimizer
    from tasks.records.scaling import ModelShape, TrainingPlan, flops_per_token

    world = join("cuda")
    config, accumulation = ModelShape(**task["config"]), task["accumulation"] // world.size
    with compile_ahead(config, task["precision"], True, world):
        tokens = torch.load(task["tokens"]).cuda()
        with torch.device("cuda"):
            model = GPT(config, embedding_dtype(task["precision"]))
        model.init_weights(1)
        compute = build_compute(model, task["precision"])
        optimizer = build_optimizer(model, TrainingPlan(**task["plan"]))
    x, y = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    seconds, losses, first = [], [], 0.0
    for step in range(task["steps"] + 1):
        torch.cuda.synchronize()
        start = time.time()
        optimizer.zero_grad()
        for micro in range(accumulation):
            if micro == accumulation - 1:
                optimizer.start_reduce()
            loss = compute.backward(x, y, 1 / task["accumulation"])
        optimizer.step(*task["rates"])
        losses.append(loss.item())
        torch.cuda.synchronize()
        if step == 0:
            first = time.time() - task["started"]
        else:
            seconds.append(time.time() - start)
    result = {"first_step_seconds": first, "step_seconds": seconds, "losses": losses}
    result |= {"flops_per_token": flops_per_token(config), "description": compute.description}
    result["peak_bytes"] = torch.cuda.max_memory_allocated()
    if task.get("breakdown"):
        from benchmarks.training.breakdown import table

        result["breakdown"] = table(
            lambda: compute.backward(x, y, 1 / accumulation), accumulation, optimizer, task["rates"], statistics.median(seconds)
        )  # fmt: skip
    if world.leads:
        print(json.dumps(result), flush=True)
    leave()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
