"""Say as JSON what the environment it runs in can do. Argument: the number of GPUs that must compute."""

import importlib.metadata
import json
import platform
import sys

import torch

PACKAGES = ("fabrating", "prefect", "torch", "pyarrow", "tokenizers", "obstore", "numpy", "wandb")


def main(gpus: int) -> None:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    computed = 0
    for index in range(min(gpus, found)):
        a = torch.ones(256, 256, device=f"cuda:{index}", dtype=torch.bfloat16)
        computed += int((a @ a).float().mean().item() == 256)
    print(json.dumps({"versions": versions, "cuda": torch.version.cuda, "gpus": found, "computed": computed}))


main(int(sys.argv[1]))
