"""The study's text and ratings: what is read of packages, and what the ratings rank higher."""

import csv
import hashlib
import io
import lzma
import tarfile

import numpy as np
import pytest

from benchmarks.study import corpus, docs, ratings
from tasks.errors import InputError

EXPLAINED = (
    "The cache keeps what was asked for once, so that it can be answered again without asking the server. When a page "
    "changes, its entry is too old and has to go. That is why every entry has a time after which it is asked for anew."
)
LISTED = (
    "int read_page(struct cache *c, int n)\n\nREAD_ONLY | 0x01\n\nWRITE | 0x02\n\nint drop_page(struct cache *c, int n)"
)


def deb(files):
    """The bytes of a Debian package with these files."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(f"./{path}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    packed, archive = lzma.compress(data.getvalue()), b"!<arch>\n"
    for name, part in (("debian-binary", b"2.0\n"), ("data.tar.xz", packed)):
        archive += (
            f"{name:<16}{'0':<12}{'0':<6}{'0':<6}{'100644':<8}{len(part):<10}`\n".encode()
            + part
            + b"\n" * (len(part) % 2)
        )
    return archive


def packaged(folder, files, name="some-doc"):
    content = deb(files)
    (folder / f"{name}_1_all.deb").write_bytes(content)
    return docs.Package(hashlib.sha256(content).hexdigest(), f"pool/main/s/{name}_1_all.deb", outside=False)


def test_a_page_is_its_text_without_what_frames_it():
    page = (
        "<html><head><title>No</title></head><body><nav>Up <b>down</b></nav><div class='sphinxsidebar'><div>Contents</div></div>"
        "<p>Some   text&amp;more.</p><!-- <p>no</p> --><pre>a\n  b</pre><ul><li>one</li><li>two</li></ul></body></html>"
    )
    assert docs.plain_text("usr/share/doc/x/page.html", page.encode()) == "Some text&more.\n\na\n  b\n\none\ntwo"


def test_a_manual_page_is_its_words():
    source = '.de XX\n.junk\n..\n.TH X 1\n.SH "NAME"\nx \\- does \\fIthings\\fP\n.IX Item "x"\n.PP\nSee\n.B y (1).\n'
    assert docs.plain_text("usr/share/man/man1/x.1", source.encode()) == "NAME\n\nx - does things\n\nSee\ny (1)."


def test_documents_are_pages_in_english_each_text_once(tmp_path):
    page = f"<p>{EXPLAINED}</p>".encode() * 3
    files = {
        "usr/share/doc/x/one.html": page,
        "usr/share/doc/x/two.html": page.upper().replace(b"P>", b"p>"),
        "usr/share/doc/x/fr/one.html": page + b"<p>et plus</p>",
        "usr/share/doc/x/genindex.html": page + b"<p>index</p>",
        "usr/share/doc/x/README.txt": page + b"beside pages",
        "usr/share/doc/x/short.html": b"<p>short</p>",
    }
    found = docs.documents([packaged(tmp_path, files)], tmp_path, 1)
    assert [(document.package, document.path) for document in found] == [("some-doc", "usr/share/doc/x/one.html")]


def test_a_long_text_is_cut_between_paragraphs():
    paragraphs = [f"{number} " + "word " * 300 for number in range(12)]
    found = list(docs.pieces("\n\n".join(paragraphs)))
    assert len(found) > 1 and all(len(piece) <= docs.LONGEST for piece in found)
    assert "\n\n".join(found).split("\n\n") == paragraphs


def test_a_package_of_other_content_is_refused(tmp_path):
    package = packaged(tmp_path, {"usr/share/doc/x/a.txt": b"text"})
    (tmp_path / "some-doc_1_all.deb").write_bytes(deb({"usr/share/doc/x/a.txt": b"other"}))
    with pytest.raises(InputError, match="does not have the SHA-256"):
        docs.fetch(package, tmp_path)


def test_the_list_of_packages_keeps_a_book_out_of_the_pool():
    packages = docs.listed()
    assert len({package.name for package in packages}) == len(packages) > 30
    assert [package.name for package in packages if package.outside] == ["debian-handbook"]
    assert all(len(package.sha256) == 64 and package.url.endswith("_all.deb") for package in packages)


def test_what_explains_is_rated_above_what_lists():
    assert ratings.prose(EXPLAINED) == 1 and ratings.prose(LISTED) == 0
    assert ratings.readability("The cat sat. It ate.") > ratings.readability(
        "Asynchronous initialization necessitates synchronization."
    )
    assert ratings.density(EXPLAINED) > ratings.density("the same again " * 20)
    texts = [f"{kind} {number}" for number in range(20) for kind in (EXPLAINED, LISTED)]
    labels = np.array([1, 0] * 20)
    classifier = ratings.Classifier.fit(texts, labels)
    odds = classifier.log_odds([EXPLAINED, LISTED])
    assert odds[0] > 0 > odds[1] and ratings.held_out_auc(texts, labels) == 1


def test_ranks_go_from_0_to_100_and_equal_values_share_one():
    assert ratings.ranks(np.array([3.0, 1.0, 2.0])).tolist() == [100, 0, 50]
    assert ratings.ranks(np.array([1.0, 1.0, 2.0])).tolist() == [25, 25, 100]


def test_labels_are_whole():
    with ratings.LABELS.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) > 300 and {row["teaches"] for row in rows} == {"0", "1"}
    assert all(len(row["document"]) == 16 and int(row["start"]) >= 0 for row in rows)
    assert {row["package"] for row in rows} <= {package.name for package in docs.listed()}


def test_the_corpus_has_every_document_with_a_rating_of_each_kind(tmp_path):
    import pyarrow.parquet as pq

    pool = [docs.Document("a-doc", f"{number}", f"{EXPLAINED} {number}") for number in range(20)]
    corpus.write(tmp_path, pool, pool[:3], ratings.Classifier.fit([EXPLAINED, LISTED], np.array([1, 0])))
    table = pq.read_table(tmp_path / corpus.POOL)
    assert sorted(table["text"].to_pylist()) == sorted(document.text for document in pool)
    assert all(0 <= value <= 100 for name in ratings.NAMES for value in table[name].to_pylist())
    assert pq.read_table(tmp_path / corpus.OUTSIDE).num_rows == 3
