"""What a person fills in to compare arms."""

import pytest

from tasks.errors import InputError
from tasks.spec import Training
from tasks.verdict.form import ComparisonForm


@pytest.mark.parametrize("given", [{"seeds": [1, 2]}, {"replicates": 3}])
def test_one_thing_alone_says_how_many_runs_an_arm_gets(given):
    assert list(ComparisonForm().spec().seeds) == [1, 2, 3, 4]
    with pytest.raises(InputError, match="seeds and redraw are both given"):
        ComparisonForm(seeds=[1, 2], redraw=["init"]).spec()
    with pytest.raises(InputError, match=f"{next(iter(given))} and stop all say how many runs an arm gets: give one"):
        ComparisonForm(stop={"max_replicates": 8}, **given).spec()


def test_some_fields_of_a_training_leave_its_recipe_quiet():
    assert ComparisonForm(train={"depth": 4}).train == Training(depth=4, recipe="quiet")
    assert ComparisonForm(train={"recipe": "upstream"}).train.recipe == "upstream"
