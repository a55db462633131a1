"""Which rating did it: arms of one pool by three ratings and a control, from raw documents to one verdict."""

import json

import pytest
from typer.testing import CliRunner

from flows.sequence import Steps, prepare_arm, train_arm
from infra.cli.main import app
from tasks.errors import InputError
from tasks.spec import ENGAGEMENT, FACTUAL, PEDAGOGICAL, Arm, Pool, Training, with_common_population
from tasks.store.root import Root
from tasks.verdict.judge import judge

SHUFFLED = {"order": "shuffled", "share": 0.3}
TRAINING = Training(
    depth=1, sequence_length=64, window_pattern="L", batch_tokens=2048, tokens=4096, precision="fp32", device="cpu", wandb="disabled"
)  # fmt: skip


@pytest.mark.slow
def test_three_ratings_and_a_control_share_a_pool_and_have_one_verdict(sample, tmp_path):
    root = Root(tmp_path / "root")
    sizes = {"holdout_documents": 60, "holdout_fraction": 0.1, "vocab_size": 512, "tokenizer_characters": 200_000}
    pool = Pool(source=sample.as_uri(), **sizes)
    arms = with_common_population(
        pool,
        [
            Arm(name="factual", score={FACTUAL: 1.0}, **SHUFFLED),
            Arm(name="engaging", score=f"{ENGAGEMENT} - 0.1 * {FACTUAL}", **SHUFFLED),
            Arm(name="pedagogical", score={PEDAGOGICAL: 2.0}, where=f"{FACTUAL} is not None", **SHUFFLED),
            Arm(name="control", select="random", **SHUFFLED),
        ],
    )
    prepared = {arm.name: prepare_arm(root, pool, arm, TRAINING, Steps()) for arm in arms}
    (pool_id,) = {made.pool_id for made in prepared.values()}
    parts = [name.split("/")[2:] for name in root.names("pools")]
    assert sum(part[0] == "columns" for part in parts) == 3 and sum(part[0] == "strata" for part in parts) == 4
    for one in ("index", "holdout", "tokenizer", "evaluation"):
        assert parts.count([one]) == 1
    assert len({made.packed.manifest.made_from[f"pools/{pool_id}/tokenizer"] for made in prepared.values()}) == 1
    assert len({made.text.facts["population"] for made in prepared.values()}) == 1

    runs = {
        name: [train_arm(root, made.arm_id, TRAINING, seed).name.split("/")[1] for seed in (1, 2)]
        for name, made in prepared.items()
    }
    with pytest.raises(InputError, match=r"selected by different scores \(factual: .*strata_by"):
        judge(root, "which", runs)
    by_factual = {"factual": runs["factual"], "control": runs["control"]}
    with pytest.raises(InputError, match="selected by different scores"):
        judge(root, "two", by_factual)
    given = [f"{name}={','.join(ids)}" for name, ids in runs.items()]
    for score in (FACTUAL, json.dumps({FACTUAL: 1.0})):
        done = CliRunner().invoke(app, ["judge", *given, "--root", str(root.folder), "--strata-by", score, "--json"])
        assert done.exit_code == 0, done.output
        verdict = json.loads(done.stdout)
        assert len(verdict["comparisons"]) == 6
        assert verdict["strata_by"] == (FACTUAL if score == FACTUAL else {FACTUAL: 1.0})
        deciles = [row for row in verdict["comparisons"][0]["strata"] if row["kind"] == "decile"]
        assert len(deciles) == 10 and sum(row["documents"] for row in deciles) <= 60
