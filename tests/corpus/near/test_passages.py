"""What counts as a near copy of a held-out document, and what does not."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.corpus.near.passages import COMMON, Passages
from tasks.corpus.scratch import Scratch
from tasks.store.root import Root
from tests.corpus.corpora import prose

SHARE = 0.8


def passages(texts: list[str]) -> Passages:
    return Passages.of([pa.array(texts, pa.large_string())], SHARE)


def found(known: Passages, texts: list[str]) -> list[tuple[int, int]]:
    pairs = known.find(pa.array(texts, pa.large_string()))
    return list(zip(pairs.row.tolist(), pairs.document.tolist(), strict=True))


def edited(text: str, part: float, seed: int) -> str:
    """The text with a part of its words replaced."""
    rng = np.random.default_rng(seed)
    words = text.split()
    for place in np.flatnonzero(rng.random(len(words)) < part):
        words[place] = f"edited{place}"
    return " ".join(words)


def test_edited_copies_are_found_and_other_texts_are_not() -> None:
    held, others = prose(40, seed=1, words=600), prose(200, seed=2, words=600)
    copies = [edited(text, 0.1, seed) for seed, text in enumerate(held)]
    assert found(passages(held), copies + others) == [(i, i) for i in range(40)]


def test_case_punctuation_and_line_breaks_do_not_hide_a_passage() -> None:
    held = prose(1, seed=1, words=80)
    shown = "\n".join(f"- {word.capitalize()}," for word in held[0].split())
    assert found(passages(held), [*prose(3, seed=2), shown]) == [(3, 0)]


def test_a_passage_that_two_texts_make_together_is_none() -> None:
    words = prose(1, seed=1, words=24)[0].split()
    known = passages([" ".join(words)])
    assert known.sizes[0] and found(known, [" ".join(words[:12]), " ".join(words[12:])]) == []


def test_what_many_held_out_documents_have_is_no_passage_of_one_of_them() -> None:
    licence = prose(1, seed=9, words=60)[0]
    few, many = prose(COMMON, seed=1), prose(COMMON + 1, seed=1)
    other = [prose(1, seed=5)[0] + " " + licence]
    assert found(passages([f"{text} {licence}" for text in few]), other) == [(0, i) for i in range(COMMON)]
    assert found(passages([f"{text} {licence}" for text in many]), other) == []


def test_a_document_that_is_all_boilerplate_is_near_to_what_has_most_of_it() -> None:
    licence = prose(1, seed=9, words=100)[0]
    known = passages([*[f"{text} {licence}" for text in prose(COMMON + 1, seed=1)], licence])
    assert found(known, [prose(1, seed=5)[0] + " " + edited(licence, 0.01, 0)]) == [(0, COMMON + 1)]


def test_numbers_and_repeated_words_are_no_passage() -> None:
    counted = " ".join(map(str, range(200)))
    menu = "home about contact " * 40
    known = passages([counted + menu])
    assert known.unsearchable == 1 and found(known, [counted, menu]) == []


def test_short_and_empty_texts_are_searched_and_looked_for(tmp_path: Path) -> None:
    known = passages(["", "three words only", *prose(1, seed=1)])
    assert known.unsearchable == 2
    assert found(known, ["", "three words only", "", *prose(1, seed=1)]) == [(3, 2)]
    assert found(passages([]), prose(2, seed=1)) == []


def test_written_passages_find_what_they_found_before(tmp_path: Path) -> None:
    held = prose(20, seed=1)
    for known, name in ((passages(held), "some"), (passages([]), "none")):
        made = Root(tmp_path).build(f"pools/p/{name}", known.write, spec={})
        again = Passages.open(Scratch(made.path), SHARE)
        assert found(again, held) == found(known, held)
