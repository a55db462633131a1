"""The study's experiments, its pictures, and one figure of its results by hand."""

import pytest

from benchmarks.study import figures, kept, page, run
from tasks.records.ladder import Forecast, Rung
from tasks.reports import charts


def test_every_experiment_can_be_asked():
    everything = [name for stage in run.STAGES for name in stage]
    assert sorted(f"{name}.yaml" for name in everything) == sorted(path.name for path in run.EXPERIMENTS.iterdir())
    assert all(run.asked(name)[1].name == name for name in everything)
    assert all(run.specs_of(name, small=True) for name in everything)


def test_all_experiments_share_pool_and_root_and_all_of_a_kind_their_training():
    forms = {name: run.form_of(name) for stage in run.STAGES for name in stage}
    assert all((form.data, form.root) == (forms["best"].data, forms["best"].root) for form in forms.values())
    assert len({(form.train.sequence_length, form.train.packing) for form in forms.values()}) == 1, "the same rows"
    scaled = {name for name in forms if name.startswith("scale")}
    for names in (scaled, set(forms) - scaled):
        assert len({forms[name].train.model_copy(update={"depth": 6}).model_dump_json() for name in names}) == 1


def test_equal_arms_of_two_experiments_are_one_arm():
    arms = {}
    for name in run.ORDER:
        spec = run.asked(name)[1]
        for arm in spec.arms:
            assert arms.setdefault(arm.name, arm.of(spec.pool)) == arm.of(spec.pool)


@pytest.mark.parametrize("name", run.LADDERS)
def test_what_a_ladder_predicts_is_what_is_measured_on_runs_that_go_on_with_its_own(name):
    ladder, measured = run.form_of(name).ladder(), run.asked(run.LADDERS[name])[1]
    assert measured.training.identity() == ladder.training(ladder.to).identity()
    rungs = run.specs_of(name)
    assert {(rung.target, tuple(rung.seeds), tuple(rung.redraw)) for rung in rungs} == {
        (measured.target, tuple(measured.seeds), tuple(measured.redraw))
    }


def test_a_ladder_is_told_with_what_was_measured_at_its_target():
    rungs = tuple(
        Rung(
            depth=d,
            flops=10.0**d,
            difference=0.1,
            low=0.0,
            high=0.2,
            error_seeds=0.01,
            error_documents=0.01,
            replicates=3,
        )
        for d in (4, 6, 8)
    )
    forecast = Forecast(
        a="best", b="random", rungs=rungs, difference=0.1, low=0.05, high=0.15, probability=0.0, between=0.0, band=()
    )
    (pair,) = kept.published()[kept.QUESTION].comparisons
    for difference, words in ((0.12, "holds"), (0.16, "misses"), (-0.1, "misses")):
        found = page.backtested(forecast, pair.model_copy(update={"difference": difference}), 10)
        assert f"Its interval {words} it" in found and f"{difference:+.4f}" in found


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
