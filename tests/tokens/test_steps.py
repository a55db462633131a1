"""The tasks of this room, called as plain functions."""

from tasks.store.root import Root
from tasks.tokens import steps
from tests.tokens.conftest import ARM, POOL, make_documents, write_pool, write_text


def test_steps_lead_from_a_pool_to_rows(tmp_path):
    root = Root(tmp_path)
    write_pool(root, POOL, make_documents(400, seed=30), make_documents(40, seed=31))
    write_text(root, ARM, [make_documents(300, seed=32)])
    trained = steps.tokenizer.fn(root.url, POOL, 400)
    evaluation = steps.evaluation.fn(root.url, POOL)
    packed = steps.pack.fn(root.url, ARM, POOL, 32)
    assert trained["vocab_size"] == evaluation["vocab_size"] == packed["vocab_size"] == 400
    assert evaluation["documents"] == 40
    assert packed["documents"] == 300
    assert packed["tokenizer"] == evaluation["tokenizer"]
