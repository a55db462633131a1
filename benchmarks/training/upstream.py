"""nanochat's model and optimizer, driven from outside. Runs as a script in its own process: nanochat has its own package `tasks`.

python upstream.py speed CHECKOUT '{"depth": 20, ...}'            -> one line of JSON
python upstream.py function CHECKOUT WEIGHTS.pt OUT.pt           -> logits, loss, gradients and weights after some steps
python upstream.py train CHECKOUT TASK.pt OUT.pt                 -> weights after training on packed rows
"""

import json
import sys
import time
from pathlib import Path


def _model(config: dict, device: str, state: dict | None = None):
    import torch
    from nanochat.gpt import GPT, GPTConfig

    with torch.device("meta"):
        model = GPT(GPTConfig(**config))
    model.to_empty(device=device)
    model.init_weights()
    if state is not None:
        model.load_state_dict({name: tensor.to(device) for name, tensor in state.items()}, strict=True)
    return model


def _to_fp8(model) -> None:
    """As nanochat's base_train does with --fp8."""
    import torch
    from nanochat.fp8 import Float8LinearConfig, convert_to_float8_training

    def wanted(module, name: str) -> bool:
        sizes = (getattr(module, "in_features", 0), getattr(module, "out_features", 0))
        return isinstance(module, torch.nn.Linear) and all(size % 16 == 0 for size in sizes) and min(sizes) >= 128

    convert_to_float8_training(model, config=Float8LinearConfig.from_recipe_name("tensorwise"), module_filter_fn=wanted)


def _optimizer(model, task: dict):
    """nanochat's, with the task's epsilons for the parameters that it names."""
    plan, epsilons = task["plan"], task.get("epsilons", {})
    scale = plan["lr_scale"]
    optimizer = model.setup_optimizer(
        unembedding_lr=0.008 * scale,
        embedding_lr=0.3 * scale,
        scalar_lr=0.5 * scale,
        matrix_lr=0.02 * scale,
        weight_decay=plan["weight_decay"],
    )
    names = {parameter: name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if names[parameter] in epsilons:
                group["eps"] = epsilons[names[parameter]]
    return optimizer


def _step(optimizer, rates: tuple[float, float, float]) -> None:
    lr_scale, momentum, weight_decay = rates
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * lr_scale
        if group["kind"] == "muon":
            group["momentum"], group["weight_decay"] = momentum, weight_decay
    optimizer.step()


def speed(task: dict) -> None:
    """Time steps as nanochat's loop runs them: compiled whole, gradient accumulation, a sync per step."""
    import torch

    torch.set_float32_matmul_precision("high")
    tokens = torch.load(task["tokens"]).cuda()
    model = _model(task["config"], "cuda")
    flops = model.estimate_flops()
    if task["precision"] == "fp8":
        _to_fp8(model)
    optimizer = _optimizer(model, task)
    compiled = torch.compile(model, dynamic=False)
    x, y = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    seconds, losses, first = [], [], 0.0
    for step in range(task["steps"] + 1):
        torch.cuda.synchronize()
        start = time.time()
        for _ in range(task["accumulation"]):
            loss = compiled(x, y)
            (loss / task["accumulation"]).backward()
        _step(optimizer, task["rates"])
        model.zero_grad(set_to_none=True)
        losses.append(loss.item())
        torch.cuda.synchronize()
        if step == 0:
            first = time.time() - task["started"]
        else:
            seconds.append(time.time() - start)
    result = {"first_step_seconds": first, "step_seconds": seconds, "losses": losses, "flops_per_token": flops}
    result["peak_bytes"] = torch.cuda.max_memory_allocated()
    print(json.dumps(result), flush=True)


def function(weights: str, out: str) -> None:
    """What the model computes from given weights and rows, and where its optimizer takes it."""
    import torch

    task = torch.load(weights)
    model = _model(task["config"], task["device"], task["state"])
    names = {parameter: name for name, parameter in model.named_parameters()}
    rows = [row.to(task["device"]) for row in task["rows"]]
    x, y = rows[0][:, :-1].contiguous(), rows[0][:, 1:].contiguous()
    with torch.no_grad():
        result = {"logits": model(x).cpu()}
    loss = model(x, y)
    loss.backward()
    result["loss"] = loss.item()
    result["gradients"] = {name: parameter.grad.float().cpu() for parameter, name in names.items()}
    if task["rates"]:
        optimizer = _optimizer(model, task)
        model.zero_grad(set_to_none=True)
        for row, rates in zip(rows, task["rates"], strict=True):
            model(row[:, :-1].contiguous(), row[:, 1:].contiguous()).backward()
            _step(optimizer, rates)
            model.zero_grad(set_to_none=True)
        result["state"] = {name: parameter.detach().cpu() for parameter, name in names.items()}
    torch.save(result, out)


def train(task: str, out: str) -> None:
    """Train as `speed` does, from given weights, on packed rows in their order, by given rates."""
    import numpy as np
    import torch

    torch.set_float32_matmul_precision("high")
    task = torch.load(task)
    model = _model(task["config"], task["device"], task["state"])
    optimizer = _optimizer(model, task)
    compiled = torch.compile(model, dynamic=False)
    rows = np.memmap(task["rows"], "<u2", "r").reshape(-1, task["config"]["sequence_len"] + 1)
    for step, rates in enumerate(task["rates"]):
        batch = rows[step * task["batch"] : (step + 1) * task["batch"]].astype(np.int64)
        pieces = torch.from_numpy(batch).to(task["device"]).split(task["micro"])
        for piece in pieces:
            loss = compiled(piece[:, :-1].contiguous(), piece[:, 1:].contiguous())
            (loss / len(pieces)).backward()
        _step(optimizer, rates)
        model.zero_grad(set_to_none=True)
    torch.save({name: tensor.cpu() for name, tensor in model.state_dict().items()}, out)


if __name__ == "__main__":
    mode, checkout, *rest = sys.argv[1:]
    if not (Path(checkout) / "nanochat" / "gpt.py").exists():
        sys.exit(f"{checkout} is no checkout of nanochat: nanochat/gpt.py is missing")
    sys.path[0] = checkout
    if mode == "speed":
        speed(json.loads(rest[0]))
    elif mode == "train":
        train(*rest)
    else:
        function(*rest)
