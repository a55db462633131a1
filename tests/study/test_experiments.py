"""The study's experiments, its pictures, and one figure of its results by hand."""

import pytest

from benchmarks.study import figures, kept, page, run
from tasks.reports import charts


def test_every_experiment_can_be_asked():
    assert {f"{name}.yaml" for name in run.ORDER} == {path.name for path in run.EXPERIMENTS.iterdir()}
    specs = {name: run.asked(name)[1] for name in run.ORDER}
    assert all(spec.name == name for name, spec in specs.items())


def test_all_experiments_share_pool_training_and_root():
    forms = [run.asked(name)[0] for name in run.ORDER]
    assert all((form.data, form.train, form.root) == (forms[0].data, forms[0].train, forms[0].root) for form in forms)


def test_equal_arms_of_two_experiments_are_one_arm():
    arms = {}
    for name in run.ORDER:
        spec = run.asked(name)[1]
        for arm in spec.arms:
            assert arms.setdefault(arm.name, arm.of(spec.pool)) == arm.of(spec.pool)


def test_pictures_have_colours_for_light_and_dark_pages():
    drawn = charts.strata_svg([("a", 0.1, 0.05, 0.2), ("b", -0.1, -0.2, 0.1)], zero="a less b")
    themed = figures.themed(drawn)
    assert set(themed) == {"light", "dark"} and themed["light"] != themed["dark"]
    assert "var(--" in drawn and not any("var(" in svg for svg in themed.values())


def test_the_difference_that_is_published_is_that_of_the_kept_scores():
    (pair,) = kept.published()[kept.QUESTION].comparisons
    assert kept.by_hand(a=pair.a, b=pair.b) == pytest.approx(pair.difference, abs=1e-9)


def test_the_page_and_the_pictures_are_those_of_the_kept_results(tmp_path):
    found = kept.published()
    written = tmp_path / "README.md"
    written.write_text(f"{page.BEGIN}\nold\n{page.END}\n")
    page.write(found, written)
    assert written.read_text().strip() in page.README.read_text()
    assert {picture.name for picture in figures.draw(found, tmp_path)} == {
        file.name for file in figures.FIGURES.iterdir()
    }
