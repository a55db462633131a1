"""Four cheap ratings of a text, as percentile ranks in the pool (0 to 100), so that their mean is one rating more.

readability   Flesch reading ease (Flesch 1948): short words in short sentences
prose         the part of the characters that stand in paragraphs of whole sentences, instead of lists, tables and code
density       compressed bytes a byte (zlib) of the text: what repeats itself is low
teaches       a logistic regression on words and pairs of words, trained on the labels in `labels.csv`; `RULE` says what they mean

None of them asks a language model, and none was tuned on what a run scored.
"""

import csv
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

LABELS = Path(__file__).with_name("labels.csv")
RULE = """1 if somebody who does not know the subject would learn something connected from the passage alone: it explains, in sentences, what
a thing is for, how or why it works, or how to do something, or it walks through an example. 0 if it only lists: signatures, options,
symbols, tables, menus, output, licences, news, links, code without words, or sentences so bare of context that they only remind
those who know."""
PASSAGE = 400  # characters that one label is about
PASSAGES = 3  # of a document that the classifier reads: its mean log-odds
BUCKETS = 1 << 16
PENALTY = 2.0  # of the squared weights, in units of one label's loss
BLOCK = 4_000  # bytes that are compressed at a time, so that the ratio does not depend on a text's length
NAMES = ("readability", "prose", "density", "teaches")

WORD = re.compile(r"[A-Za-z]+|\d+|[^\sA-Za-z\d]")
PLAIN_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
VOWELS = re.compile(r"[aeiouy]+", re.I)
SENTENCE_END = re.compile(r"[.!?:](?=\s|$)")


def readability(text: str) -> float:
    """Flesch reading ease of the first 4,000 characters; higher is easier. A blank line ends a sentence, too."""
    text = text[:BLOCK]
    words = PLAIN_WORD.findall(text)
    if not words:
        return -100.0
    sentences = sum(len(SENTENCE_END.findall(part)) or 1 for part in text.split("\n\n") if part.strip())
    syllables = len(VOWELS.findall(" ".join(words)))
    return float(max(-100.0, 206.835 - 1.015 * len(words) / sentences - 84.6 * syllables / len(words)))


def prose(text: str) -> float:
    """The part of the characters in paragraphs that begin like a sentence, end like one and have eight words or more."""
    inside = sum(len(part) for part in text.split("\n\n") if _is_prose(part.strip()))
    return inside / len(text)


def _is_prose(part: str) -> bool:
    return bool(part) and part[0].isupper() and part[-1] in ".!?:" and len(PLAIN_WORD.findall(part)) >= 8


def density(text: str) -> float:
    """Compressed bytes a byte, mean over blocks of 4,000 bytes; the last one counts if it is half a block or the only one."""
    data = text.encode()
    blocks = [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)]
    if len(blocks) > 1 and len(blocks[-1]) < BLOCK // 2:
        blocks.pop()
    return float(np.mean([len(zlib.compress(block, 6)) / len(block) for block in blocks]))


def passages(text: str) -> list[str]:
    """What the classifier reads of a document: passages from its beginning to its end."""
    starts = np.linspace(0, max(0, len(text) - PASSAGE), PASSAGES).astype(int)
    return [text[start : start + PASSAGE] for start in dict.fromkeys(starts.tolist())]


def features(texts: Iterable[str]) -> csr_matrix:
    """Words and pairs of words, hashed: log(1 + count), each row of length 1, with a constant as last column."""
    known: dict[str, int] = {}
    indices, values, ends = [], [], [0]
    for text in texts:
        words = ["0" if word.isdigit() else word.lower() for word in WORD.findall(text)]
        counts: dict[int, int] = {}
        for term in (*words, *map(" ".join, pairwise(words))):
            place = known.get(term)
            if place is None:
                place = known[term] = zlib.crc32(term.encode()) % BUCKETS
            counts[place] = counts.get(place, 0) + 1
        row = np.log1p(np.fromiter(counts.values(), float, len(counts)))
        indices += [*counts, BUCKETS]
        values += [*(row / (np.linalg.norm(row) or 1)), 1.0]
        ends.append(len(indices))
    return csr_matrix((values, indices, ends), (len(ends) - 1, BUCKETS + 1))


@dataclass(frozen=True)
class Classifier:
    """Weights (BUCKETS + 1,) of a logistic regression on `features`."""

    weights: np.ndarray

    @classmethod
    def fit(cls, texts: Sequence[str], labels: np.ndarray) -> "Classifier":
        """The weights that minimize the log-loss of labels 0 and 1 and the squares of the weights (but the constant's)."""
        rows, signs = features(texts), 2.0 * labels - 1

        def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
            margins = signs * (rows @ weights)
            gradient = rows.T @ (-signs / (1 + np.exp(margins)))
            plain = np.append(weights[:-1], 0.0)
            return float(
                np.logaddexp(0, -margins).sum() + PENALTY / 200 * plain @ plain
            ), gradient + PENALTY / 100 * plain

        return cls(minimize(loss, np.zeros(rows.shape[1]), jac=True, method="L-BFGS-B").x)

    def log_odds(self, texts: Sequence[str]) -> np.ndarray:
        """Of label 1, (texts,)."""
        odds: np.ndarray = features(texts) @ self.weights
        return odds


def labelled(documents: dict[str, str], file: Path = LABELS) -> tuple[list[str], np.ndarray]:
    """The passages that were labelled and their labels, (passages,). `documents`: {id: text}; labels of others are left out."""
    with file.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["document"] in documents]
    texts = [documents[row["document"]][int(row["start"]) : int(row["start"]) + PASSAGE] for row in rows]
    return texts, np.array([int(row["teaches"]) for row in rows])


def held_out_auc(texts: Sequence[str], labels: np.ndarray, folds: int = 10) -> float:
    """How often a passage of label 1 is ranked above one of label 0 by a classifier that has seen neither: area under the ROC curve."""
    order = np.random.default_rng(1).permutation(len(texts))
    odds = np.empty(len(texts))
    for fold in range(folds):
        tested = order[fold::folds]
        trained = np.setdiff1d(order, tested)
        odds[tested] = Classifier.fit([texts[i] for i in trained], labels[trained]).log_odds([texts[i] for i in tested])
    above = odds[labels == 1][:, None] - odds[labels == 0]
    return float((above > 0).mean() + (above == 0).mean() / 2)


def ranks(values: np.ndarray) -> np.ndarray:
    """Percentile ranks, 0 to 100, (n,); equal values share one."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2
    return 100 * middle[place] / max(1, len(values) - 1)


def rate(texts: Sequence[str], classifier: Classifier) -> dict[str, np.ndarray]:
    """Each rating of all texts, {name: (texts,)} as percentile ranks, with two decimals."""
    read = [passages(text) for text in texts]
    odds = classifier.log_odds([passage for each in read for passage in each])
    ends = np.cumsum([len(each) for each in read])
    raw = {
        "readability": np.array([readability(text) for text in texts]),
        "prose": np.array([prose(text) for text in texts]),
        "density": np.array([density(text) for text in texts]),
        "teaches": np.array([part.mean() for part in np.split(odds, ends[:-1])]),
    }
    return {name: np.round(ranks(raw[name]), 2) for name in NAMES}
