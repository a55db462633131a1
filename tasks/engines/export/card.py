"""The model card: what a model was trained on, how far, how good it is, and what the verdicts say."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.engines.trained import Trained
from tasks.errors import DamagedError
from tasks.escaping import markdown
from tasks.records import ledger
from tasks.records.layout import VERDICT, VerdictFolder
from tasks.records.result import RunFacts
from tasks.records.scaling import parameter_counts
from tasks.records.verdict import Verdict
from tasks.store.root import Root

FRONT = """---
library_name: transformers
pipeline_tag: text-generation
tags: [fabrating]
---
"""
USE = """## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER", trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained("FOLDER", trust_remote_code=True)
prompt = tokenizer("The water cycle", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=64, do_sample=True)[0], skip_special_tokens=True))
```

The code that computes the model is `modeling_fabrating.py` in this folder. Each document was trained on with `<|bos|>` before it, which the tokenizer
adds; `lm_eval` does so with `add_bos_token=True`:

```sh
lm_eval run --model hf --model_args pretrained=FOLDER,trust_remote_code=True,add_bos_token=True --tasks arc_easy
```
"""


@dataclass(frozen=True)
class Judged:
    """A verdict that the run is part of, by its name below verdicts/."""

    name: str
    verdict: Verdict


def verdicts_of(root: Root, run: str) -> list[Judged]:
    """The verdicts under the root that judge a run; those that this version cannot read are passed over."""
    found = []
    for name in VerdictFolder.all(root):
        try:
            verdict = Verdict.read(root.file(VerdictFolder(name).name, VERDICT))
        except DamagedError:
            continue
        if run in verdict.runs:
            found.append(Judged(name, verdict))
    return found


def model_card(root: Root, trained: Trained, facts: RunFacts, judged: Sequence[Judged], use: str = USE) -> str:
    """The card as Markdown. `use`: how the files beside it are loaded."""
    experiment, entry = trained.job.experiment, ledger.find(root, trained.run)
    arm, training, pool = experiment.arm, experiment.training, experiment.pool
    counts, shape = parameter_counts(trained.shape), trained.shape
    sources = pool.urls
    rows = {
        "Data": ", ".join(f"{name}: {url}" if name else url for name, url in sources.items()),
        "Pool": trained.job.pool_id,
        "Arm": f"{arm.name} ({trained.job.arm_id})",
        "Documents trained on": None if facts.trained_documents is None else f"{facts.trained_documents:,}",
        "Trained tokens": f"{facts.tokens:,}, {facts.tokens / counts.scaling:.1f} for each scaling parameter",
        "Parameters": f"{counts.total:,}, of which {counts.scaling:,} are scaling parameters (block matrices and lm_head)",
        "Shape": f"{shape.n_layer} layers, {shape.n_embd} channels, {shape.n_head} head{'s' if shape.n_head > 1 else ''}, windows {shape.window_pattern}",
        "Context": f"{shape.sequence_len:,} tokens",
        "Vocabulary": f"{shape.vocab_size:,} tokens, byte-level BPE",
        "Training": f"engine {training.engine}, recipe {training.recipe}, {training.precision}, seed {experiment.seed}, {facts.steps:,} steps",
        "Device": f"{facts.gpus} x {facts.device}, {facts.wall_seconds / 3600:.2f} hours",
        "Cost": None if entry is None or not entry.dollars else f"${entry.dollars:,.2f}",
        "Code": f"FabRating {facts.code}{f', commit {facts.code_commit}' if facts.code_commit else ''}",
    }
    table = "".join(f"| {name} | {markdown(value)} |\n" for name, value in rows.items() if value is not None)
    selection = json.dumps(arm.model_dump(mode="json", exclude_defaults=True), indent=1)
    return (
        f"{FRONT}\n# {trained.run}\n\nA language model that FabRating trained on the arm {arm.name} to compare training data. "
        "It is a base model: it continues texts and follows no instructions.\n\n"
        f"| | |\n| --- | --- |\n{table}\n"
        f"What the arm takes:\n\n```json\n{selection}\n```\n\n"
        f"## Scores\n\n{facts.bpb:.4f} bits per byte on the pool's holdout, which no arm trains on.{_deciles(facts)}\n\n"
        f"{_verdicts(judged)}{use}"
    )


def _deciles(facts: RunFacts) -> str:
    known = facts.bpb_by_decile
    if all(value is None for value in known):
        return ""
    names = " | ".join(str(number) for number in range(1, len(known) + 1))
    cells = " | ".join("-" if value is None else f"{value:.4f}" for value in known)
    return f" By decile of the documents' score, 10 the best:\n\n| {names} |\n|{' --- |' * len(known)}\n| {cells} |"


def _verdicts(judged: Sequence[Judged]) -> str:
    if not judged:
        return "## Verdicts\n\nThis run is part of no verdict yet.\n\n"
    lines = [f"- `{each.name}`: {markdown(sentence)}\n" for each in judged for sentence in each.verdict.sentences]
    return f"## Verdicts\n\n{''.join(lines)}\n"
