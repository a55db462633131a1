"""What a person fills in to compare arms."""

import pytest

from tasks.errors import InputError
from tasks.spec import Questions, Training
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


def test_bundle_is_a_name_for_the_questions_that_are_shipped():
    spec = ComparisonForm(questions="bundle", target="questions/bundle").spec()
    assert spec.questions == [Questions(name="bundle", url="bundle")]
    spec.require_matched()
    with pytest.raises(InputError, match="target is 'questions/exam', but the questions are bundle: name one of them"):
        ComparisonForm(questions="bundle", target="questions/exam").spec().require_matched()
    assert ComparisonForm().spec().questions == []
