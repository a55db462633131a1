import pytest

from tasks.records.code import Code, other_code


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ({"commit": "aaa"}, {"commit": None}, None),
        ({"commit": "aaa"}, {"commit": "bbb"}, "commit aaa against commit bbb"),
        ({"commit": "aaa", "training_version": 1}, {"commit": "bbb", "training_version": 1}, None),
        (
            {"commit": None, "training_version": 1},  # from a wheel
            {"commit": "bbb", "training_version": 2},
            "package 0.1.0 (preparation 1, training 1) against commit bbb (preparation 1, training 2)",
        ),
        # One was written before there were versions.
        ({"commit": "aaa"}, {"commit": "aaa", "training_version": 1}, None),
        (
            {"commit": "aaa"},
            {"commit": "bbb", "training_version": 1},
            "commit aaa against commit bbb (preparation 1, training 1)",
        ),
    ],
)
def test_versions_decide_where_both_are_known_and_else_the_commit(first, second, found):
    a, b = (Code(code="0.1.0", preparation_version=1, **each) for each in (first, second))
    assert other_code(a, b) == found


def test_a_process_knows_its_own_code():
    here = Code.of_this_process()
    assert here.versions is not None
    assert other_code(here, here) is None
