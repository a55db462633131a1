import base64
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from tasks.records.cost import estimate_cost
from tasks.records.verdict import Difference
from tasks.reports import artifacts, charts
from tasks.spec import Arm, Experiment, Pool, Training


def write_metrics(path, offset=0.0, steps=50):
    lines = []
    for step in range(1, steps + 1):
        tokens = 1_000 * step
        lines.append(
            {"step": step, "kind": "train", "tokens": tokens, "loss": 5 / step + offset, "tokens_per_second": 9e4}
        )
        if step % 10 == 0:
            lines.append({"step": step, "kind": "eval", "tokens": tokens, "bpb": 2 / step + offset})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def two_arms(tmp_path):
    return [write_metrics(tmp_path / f"{i}.jsonl", offset=0.1 * i) for i in range(4)], ["a", "a", "b<&$x_", "b<&$x_"]


def texts(svg):
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_loss_curve_is_one_wellformed_picture_with_hostile_labels_as_text(two_arms):
    svg = charts.loss_curve_svg(*two_arms)
    shown = texts(svg)
    assert shown.count("a") == 1 and shown.count("b<&$x_") == 1
    assert "Bits per byte on the holdout" in shown
    assert not any(stand_in in svg for stand_in in [charts.INK, charts.GRID, charts.QUIET, *charts.COLORS])
    assert "var(--" not in svg and "#ffffff" not in svg


def test_a_page_picture_leaves_colours_to_the_page(two_arms):
    svg = charts.curve_svg(*two_arms, charts.HOLDOUT)
    assert "var(--ink)" in svg and "var(--s0)" in svg and "var(--s1)" in svg


def test_equal_labels_draw_their_mean_and_range(two_arms):
    one = charts.curve_svg(two_arms[0][:1], ["a"], charts.HOLDOUT)
    pair = charts.curve_svg(two_arms[0][:2], ["a", "a"], charts.HOLDOUT)
    assert pair.count("opacity: 0.18") == 1 and one.count("opacity: 0.18") == 0


def test_one_evaluation_a_run_is_no_curve_and_stands_at_its_tokens(two_arms, tmp_path):
    alone = tmp_path / "alone.jsonl"
    alone.write_text('{"kind": "eval", "step": 195, "tokens": 399360, "bpb": 3.1}\n')
    assert charts.is_one_point([alone, alone], charts.HOLDOUT)
    assert not charts.is_one_point([alone, two_arms[0][0]], charts.HOLDOUT)
    assert "0" in texts(charts.curve_svg([alone], ["a"], charts.HOLDOUT)), "tokens are counted from 0"


def test_pictures_are_drawn_the_same_twice(two_arms):
    assert charts.curve_svg(*two_arms, charts.LOSS) == charts.curve_svg(*two_arms, charts.LOSS)


def test_a_run_without_metrics_is_said_not_drawn(tmp_path):
    assert "nothing measured yet" in texts(charts.curve_svg([tmp_path / "none.jsonl"], ["a"], charts.THROUGHPUT))
    assert charts.curve_svg([tmp_path / "none.jsonl"], ["a"], charts.MFU) == ""


def test_histogram_deciles_and_strata_are_wellformed():
    scores = {"top": np.array([4.0, 4.5, np.nan]), "flat": np.array([4.0, 4.0])}
    for svg in (
        charts.score_histogram_svg(scores),
        charts.decile_svg({"top": [1.0] * 10, "random": [1.1] * 10}),
        charts.strata_svg(
            [("all\x00\x1b[", -0.2, -0.3, -0.1), ("decile 1", 0.0, -0.1, 0.1)], zero="below 0: top better"
        ),
    ):
        assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert "−0.30" in texts(svg) or "−0.3" in texts(svg)
    assert charts.score_histogram_svg({"empty": np.array([])}) == ""


@pytest.mark.filterwarnings("error")
def test_labels_in_any_script_are_drawn_without_a_warning():
    svg = charts.strata_svg(
        [("lang: 日本", -0.2, -0.3, -0.1), ("lang: العربية", 0.0, -0.1, 0.1)], zero="below 0: 上 better"
    )
    assert "lang: 日本" in texts(svg) and "lang: العربية" in texts(svg)


def test_an_arm_keeps_its_color_where_another_has_no_scores():
    svg = charts.score_histogram_svg({"best": np.array([4.0]), "other": np.array([]), "random": np.array([1.0])})
    assert "var(--s0)" in svg and "var(--s1)" not in svg and "var(--s2)" in svg


def test_a_selection_says_its_filter_and_its_threshold():
    arm = Arm(select="top", min_score=3.5, where="dump > 3")
    assert artifacts.selection(arm.identity()) == "top from a score of 3.5 on, where dump > 3, best-first"
    assert artifacts.signed(-0.00001) == "+0.0000"


def test_smoothing_keeps_a_constant_and_the_ends():
    assert np.allclose(charts._smoothed(np.full(100, 3.0), share=0.2), 3.0)
    ramp = np.arange(100.0)
    assert np.allclose(charts._smoothed(ramp, share=0.2), ramp)


def test_loss_curve_markdown_embeds_the_picture(two_arms):
    markdown = artifacts.loss_curve_markdown(*two_arms, "a | b")
    url = re.search(r"\(data:image/svg\+xml;base64,([^)]+)\)", markdown)
    assert base64.b64decode(url[1]).decode().startswith("<svg")
    assert "a \\| b" in markdown


def test_the_plan_tells_what_and_how_much_and_what_it_costs():
    experiment = Experiment(pool=Pool(source="az://raw/a|b<img>"), arm=Arm(), training=Training(engine="nanochat"))
    plan = {
        "documents": 1_234_567,
        "bytes_to_read": 3_210_000_000,
        "score_quantiles": {"0.5": 3.333333},
        "tokens": None,
    }
    markdown = artifacts.plan_markdown(experiment, plan, [estimate_cost(experiment.training, 10**9, label="top16")])
    assert "1,234,567" in markdown and "3.21\u202fGB" in markdown and "0.5: 3.333" in markdown
    assert "<img>" not in markdown and "a|b" not in markdown
    assert "top 16.5 %" in markdown and "GPU time" in markdown
    assert "None" not in markdown


POOL = Pool(source="az://raw/web")


def test_the_plan_says_what_is_left_out_and_how_ties_are_cut():
    plan = {
        "population": 900,
        "unrated_documents": 77,
        "cut_off_score": 3.5,
        "cut_off_documents": 467,
        "cut_off_taken": 31,
    }
    plan |= {"bad_files_count": 22, "bad_files": {"a|b.parquet": "is empty (0 rows)"}}
    for markdown in (artifacts.plan_markdown(Experiment(pool=POOL), plan), artifacts.prepared_markdown("all", plan)):
        rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", markdown, re.MULTILINE)
        assert {"77", "3.5", "467", "31", "22"} <= {value for _, value in rows}
        assert "- a\\|b.parquet is empty (0 rows)\n- and 21 more" in markdown
    assert "left out:" not in artifacts.prepared_markdown("all", {"bad_files_count": 0, "bad_files": {}})


def test_the_plan_says_what_each_part_of_a_mixture_adds():
    mixed = Arm(parts=({"select": "top", "weight": 3}, {"select": "random"}), documents=400)
    parts = [{"select": "top", "weight": 0.75, "documents": 300, "again": 0}]
    parts += [{"select": "random", "weight": 0.25, "documents": 100, "again": 17}]
    shown = artifacts.plan_markdown(Experiment(pool=POOL, arm=mixed), {"documents": 400, "parts": parts})
    assert "**mixed 400 documents (3 top and 1 random), best-first**" in shown
    assert "- random, 25 %: 100 documents, and 17 more that an earlier part has" in shown
    assert "17 more" in artifacts.prepared_markdown("mixed", {"parts": parts})


def test_the_plan_is_a_range_before_and_exact_after_packing():
    experiment = Experiment(pool=POOL, training=Training(batch_tokens=2_048))
    costs = [
        estimate_cost(experiment.training, n * 2_048, label=at) for n, at in ((100, "at least"), (1_300, "at most"))
    ]
    before = artifacts.plan_markdown(experiment, {"documents": 50}, costs)
    assert "| Optimizer steps | 100 to 1,300 |" in before and "| at least | at most |" in before
    facts = {
        "steps": 143,
        "trained_tokens": 143 * 2_048,
        "text_share": 0.9987,
        "mean_score": 4.256,
        "arm_mean_score": 4.0,
    }
    assert "16.5 % of the tokens, best-first**" in artifacts.plan_markdown(
        Experiment(pool=POOL, arm=Arm(share_of="tokens")), {}
    )
    assert "best-first, 4 times** of" in artifacts.plan_markdown(Experiment(pool=POOL, arm=Arm(epochs=4)), {})
    after = artifacts.plan_markdown(experiment, facts, costs[:1])
    for line in (
        "| Optimizer steps | 143 |",
        "text trained on | 99.9 % |",
        "is trained on | 4.26 |",
        "the arm | 4.00 |",
    ):
        assert line in after


def test_scores_table_has_a_row_a_run_and_deciles_are_rows_the_best_first():
    facts = {
        "bpb": 1.23456,
        "bpb_by_decile": [1.0 + i / 10 for i in range(10)],
        "tokens": 12_345,
        "wall_seconds": 1800.0,
    }
    (row,) = artifacts.scores_table([{"run": "r", "arm": "top16", "seed": 1, **facts}])
    assert row["bits per byte"] == 1.2346
    table = artifacts.deciles_table([{"run": "r", **facts}, {"run": "unrated", "bpb_by_decile": [None] * 10}])
    assert table[0] == {"decile": "10 (best scores)", "r": 1.9} and table[-1] == {
        "decile": "1 (lowest scores)",
        "r": 1.0,
    }
    assert artifacts.decile_rows([None] * 10) == []
    assert row["tokens"] == "12,345" and row["hours"] == 0.5 and row["tokens/s"] == artifacts.MISSING


@pytest.mark.parametrize(
    ("value", "shown"), [(45 / 3600, "45 s"), (0.2, "12 min"), (3.4, "3.4 h"), (None, "–"), (1200, "1,200.0 h")]
)
def test_hours_are_shown_in_a_sensible_unit(value, shown):
    assert artifacts.hours(value) == shown


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [(-0.01, 0.02, 4), (0.00001, 0.00005, 6), (None, None, 4), (0.0, 0.0, 4), (1e-12, 2e-12, 8)],
)
def test_a_difference_is_shown_with_two_digits_of_its_interval_and_four_decimals_at_least(low, high, wanted):
    found = artifacts.digits(Difference(difference=0.0, low=low, high=high, p=None))
    assert found == wanted
    if wanted == 6:
        assert [artifacts.signed(end, found) for end in (low, high)] == ["+0.000010", "+0.000050"], (
            "not +0.0000, +0.0001"
        )


@pytest.mark.parametrize(("value", "shown"), [(999, "999 B"), (1_460_000_000, "1.46 GB"), (12_300, "12.3 kB")])
def test_bytes_are_shown_in_powers_of_a_thousand(value, shown):
    assert artifacts.byte_size(value).replace("\u202f", " ") == shown
