"""FabRating's results from Python: what lies under a root, as tables, records and models.

    import fabrating

    results = fabrating.open("az://results/fabrating")   # or a folder, s3://, gs://; without one, FABRATING_ROOT
    top, rand = results.runs()[:2]                       # the ledger, newest first
    frame = results.scores([top.run, rand.run]).to_pandas()
    print(results.verdict("top16-vs-rand16").sentences)
    model, tokenizer = results.load(top.run)

These names are stable: what others of the package's modules hold may change with any version. `docs/formats.md` describes
the columns and fields. Bad input raises `InputError`, one sentence that names it and the remedy.
"""

from fabrating.results import Loaded, PreparedArm, Results, open
from tasks.errors import InputError
from tasks.records.ledger import LedgerEntry
from tasks.records.verdict import Verdict

__all__ = ["InputError", "LedgerEntry", "Loaded", "PreparedArm", "Results", "Verdict", "open"]
