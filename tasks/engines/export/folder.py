"""Writes a finished run into a folder, for another program."""

import shutil
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from tasks.engines.export import Kind
from tasks.engines.export.card import Judged, model_card, verdicts_of
from tasks.engines.export.hub import CONFIG, WEIGHTS, save_tensors, write_hub, write_json
from tasks.engines.trained import Trained, open_trained
from tasks.errors import InputError
from tasks.records.layout import TOKEN_BYTES, TOKENIZER, RunFolder
from tasks.records.result import RunFacts
from tasks.store.artifact import Artifact, Work
from tasks.store.root import Root

CARD = "README.md"
PLAIN = f"""## Use

`{WEIGHTS}` holds the weights by nanochat's names as they were trained, `{CONFIG}` the fields of nanochat's `GPTConfig`, `{TOKENIZER}` the tokenizer
of the library `tokenizers`.
"""


def export(root: Root, run: str, to: Kind, folder: Path) -> Path:
    """Write the final weights of a finished run, its tokenizer and a model card into `folder`, which is new or empty.

    To nanochat, `folder` is its base directory (NANOCHAT_BASE_DIR) and may hold other models of the same tokenizer; the run's id is
    the model's tag. Returns the folder that holds the weights. Raises InputError when the run is unknown or not finished, or when
    the folder holds something else, DamagedError when the weights are not those that were saved.
    """
    trained, facts = open_trained(root, run)
    folder = folder.resolve()
    if to == "nanochat":
        return _to_nanochat(root, trained, folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there and not empty: name a new folder.")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _write(root, trained, facts, verdicts_of(root, run), to, partial)
    if folder.exists():
        folder.rmdir()
    partial.rename(folder)
    return folder


def build_export(root: Root, run: str, to: Kind) -> Artifact:
    """The same as the artifact `runs/<run>/export/<to>` under the root, where every host finds it.

    It is made anew when there are verdicts that its card does not tell. Raises what `export` does.
    """
    trained, facts = open_trained(root, run)
    judged = verdicts_of(root, run)
    name = RunFolder(run).export(to)
    spec = {"run": run, "to": to, "verdicts": [each.name for each in judged]}
    if (known := root.find(name)) is not None and known.spec != spec:
        root.remove(name)

    def make(work: Work) -> None:
        if to == "nanochat":
            _to_nanochat(root, trained, work.path)
        else:
            _write(root, trained, facts, judged, to, work.path)
        work.facts.update(step=trained.step, bpb=facts.bpb)

    inputs = {
        "checkpoint": trained.checkpoint,
        "tokenizer": trained.tokenizer.manifest,
        "result": root.manifest(trained.job.result),
    }
    return root.build(name, make, spec=spec, inputs=inputs)


def _write(root: Root, trained: Trained, facts: RunFacts, judged: list[Judged], to: Kind, folder: Path) -> None:
    if to == "hf":
        write_hub(trained, folder)
        (folder / CARD).write_text(model_card(root, trained, facts, judged))
        return
    save_tensors(trained.state(), folder / WEIGHTS)
    write_json(folder / CONFIG, asdict(trained.shape))
    for name in (TOKENIZER, TOKEN_BYTES):
        shutil.copyfile(trained.tokenizer.path / name, folder / name)
    (folder / CARD).write_text(model_card(root, trained, facts, judged, PLAIN))


def _to_nanochat(root: Root, trained: Trained, base: Path) -> Path:
    from tasks.engines.nanochat import contract
    from tasks.engines.nanochat.exchange import export_checkpoint
    from tasks.engines.nanochat.tokenizer import export_tokenizer

    there = contract.tokenizer_folder(base) / contract.TOKENIZER_FILE
    if there.is_file():
        with TemporaryDirectory() as scratch:
            ours = export_tokenizer(trained.tokenizer.path, Path(scratch)) / contract.TOKENIZER_FILE
            if ours.read_bytes() != there.read_bytes():
                raise InputError(f"{there} is another tokenizer than that of {trained.run}: name another folder.")
    return export_checkpoint(root, trained.run, base, trained.step)
