"""The typed parameters of an experiment: what the UI's run form asks for and what an artifact's identity is made of.

A field either determines the content of an artifact (then it is part of its fingerprint) or says how it is made (workers,
host, device). The latter are declared with `how(...)` and left out of `identity()`: the same arm prepared with 2 or 64
workers is the same arm.
"""

from tasks.spec.arm import Arm, Part, with_common_population
from tasks.spec.base import (
    CLOSED,
    Column,
    Cores,
    Count,
    Dollars,
    FieldsOf,
    Id,
    Label,
    Line,
    Name,
    Seed,
    Shape,
    Share,
    Spec,
    Url,
    how,
    if_set,
    kind_of,
    no_field,
)
from tasks.spec.experiment import (
    BUNDLE,
    DRAWS,
    HELD_SEED,
    Draw,
    Experiment,
    Questions,
    QuestionSets,
    Texts,
    asked,
)
from tasks.spec.host import Host
from tasks.spec.pool import ENGAGEMENT, FACTUAL, PEDAGOGICAL, SOURCE, Pool, Sources
from tasks.spec.score import Formula, Score, Weights, columns_of, spelled_out
from tasks.spec.training import Depth, Packing, Recipe, Training

__all__ = [
    "BUNDLE",
    "CLOSED",
    "DRAWS",
    "ENGAGEMENT",
    "FACTUAL",
    "HELD_SEED",
    "PEDAGOGICAL",
    "SOURCE",
    "Arm",
    "Column",
    "Cores",
    "Count",
    "Depth",
    "Dollars",
    "Draw",
    "Experiment",
    "FieldsOf",
    "Formula",
    "Host",
    "Id",
    "Label",
    "Line",
    "Name",
    "Packing",
    "Part",
    "Pool",
    "QuestionSets",
    "Questions",
    "Recipe",
    "Score",
    "Seed",
    "Shape",
    "Share",
    "Sources",
    "Spec",
    "Texts",
    "Training",
    "Url",
    "Weights",
    "asked",
    "columns_of",
    "how",
    "if_set",
    "kind_of",
    "no_field",
    "spelled_out",
    "with_common_population",
]
