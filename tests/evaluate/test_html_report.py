"""The pages: self-contained, nothing of the data is markup, and the cases are the right ones."""

import base64
import io
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from deixis.evaluate.evaluate import evaluate
from deixis.evaluate.predictions import PredictionLog
from deixis.evaluate.report import html_page, html_plots
from deixis.evaluate.report.gallery import choose_cases
from deixis.evaluate.report.html_report import write_html

EVIL = '<script>alert("1")</script> & "quoted" \x00\u202e'
VOID = {"meta", "img", "br", "line", "rect", "circle", "polyline"}


class Strict(HTMLParser):
    """Notes all tags and complains where they do not close in turn."""

    def __init__(self):
        super().__init__()
        self.open, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(text):
    parser = Strict()
    parser.feed(text)
    assert parser.open == []
    return parser.tags


@pytest.fixture
def report(fake_grounder, make_sample, tmp_path):
    phrases = ("10 10 0.9", "9 3 0.7", "3 9 0.6", "1 1 0.95", EVIL)
    data = [
        make_sample(i, phrase, categories=("<b>dog</b>",), category="<b>dog</b>") for i, phrase in enumerate(phrases)
    ]
    data.append(make_sample(5, "red cup", category="cup"))
    with PredictionLog(tmp_path / "predictions.jsonl") as log:
        result = replace(evaluate(fake_grounder(), data, log=log), model=EVIL, dataset="<data>", problems=(EVIL,))
    write_html(result, tmp_path / "report.html", log, data, fake_grounder())
    return result, (tmp_path / "report.html").read_text(encoding="utf-8")


def test_report_when_phrases_hold_markup_then_it_is_shown_and_not_run(report):
    _, text = report
    names = {tag for tag, _ in parsed(text)}
    assert not names & {"script", "link", "iframe", "object"}
    assert "<b>dog" not in text
    assert "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp;" in text
    assert "\x00" not in text
    assert "\u202e" not in text


def test_report_when_opened_then_nothing_is_fetched_and_it_fits_a_phone(report):
    _, text = report
    tags = parsed(text)
    sources = [attributes["src"] for tag, attributes in tags if tag == "img"]
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not re.findall(r'(?:href="|url\()(?!#)|@import', text)
    assert not any(name.startswith("on") for _, attributes in tags for name in attributes)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in tags
    assert all(attributes["alt"] for tag, attributes in tags if tag == "img")
    assert all(attributes["aria-label"] for tag, attributes in tags if tag == "svg")
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert "minmax(min(100%, 20rem), 1fr)" in text  # wide columns give way to a narrow screen
    assert "overflow-x: auto" in text  # and a wide table scrolls for itself


def test_report_when_answers_are_doubted_then_by_half_of_what_the_model_records(fake_grounder, make_sample, tmp_path):
    grounder = fake_grounder()
    grounder.calibration = {"found_score": 0.8}
    data = [make_sample(i, phrase) for i, phrase in enumerate(("10 10 0.9", "10 10 0.45", "10 10 0.35"))]
    with PredictionLog(tmp_path / "predictions.jsonl") as log:
        result = evaluate(grounder, data, log=log)
    assert result.found_score == 0.8
    assert "found_score" not in result.report()
    write_html(result, tmp_path / "report.html", log, data, grounder)
    told = set(re.findall(r"score (0\.\d\d), agreement 1\.00, ([a-z ]+)", (tmp_path / "report.html").read_text()))
    assert told == {("0.90", "found"), ("0.45", "unsure"), ("0.35", "not found")}


def test_report_when_read_then_figures_plots_and_galleries_are_there(report):
    result, text = report
    for title in ("Figures", "Parts of the data", "Plots", "Worst", "Box and mask disagree", "Best", "Left out"):
        assert f"<h2>{title}</h2>" in text
    assert f"{100 * result.report()['rec']['acc@0.5']:.1f}" in text
    assert text.count("<svg") >= 4  # slices, histogram, reliability, risk and coverage


def test_picture_when_large_then_at_most_320_pixels_wide_and_high():
    shown = html_page.case("dog", [], [("target", Image.new("RGB", (1000, 500), "red"))])
    data = base64.b64decode(re.findall(r"base64,([^\"]+)", shown)[0])
    picture = Image.open(io.BytesIO(data))
    assert (picture.format, picture.size) == ("JPEG", (320, 160))
    assert np.asarray(picture).mean(axis=(0, 1)) == pytest.approx((254, 0, 0), abs=2)


def test_choose_cases_when_worked_by_hand_then_worst_first_and_each_image_once(report):
    result, _ = report
    chosen = choose_cases(result.predictions, count=2)
    assert [one.index for one in chosen["Worst"]] == [3, 1]  # of 1 and 2, equally wrong, the surer
    assert {one.index for one in chosen["Box and mask disagree"]} == {1, 2}
    assert chosen["Best"][0].iou == 1.0
    twice = [replace(one, image_id="same") for one in result.predictions]
    assert [len(ones) for ones in choose_cases(twice).values()] == [1] * len(choose_cases(twice))


def test_text_when_very_long_then_cut():
    assert len(html_page.text("x" * 10_000)) < 400


def test_bar_chart_when_drawn_then_values_and_labels_are_words_of_the_page():
    svg = html_plots.bar_chart([html_plots.Bar("<a>", 0.5, (0.25, 1.0)), html_plots.Bar("b" * 30, 1.0)])
    assert all(word in svg for word in ("&lt;a&gt;", f"{'b' * 19}…", ">50.0<", ">100.0<"))
    parsed(svg)


def test_curves_and_histogram_when_drawn_then_axes_and_series_are_named():
    svg = html_plots.curves({"one": [(0.0, 0.0), (1.0, 0.5)]}, "score", "right", top=0.5, diagonal=True)
    assert all(f">{word}<" in svg for word in ("one", "score", "right, percent", "50"))
    parsed(svg)
    svg = html_plots.histogram({"box": [1.0, 1.0, 0.05], "mask": []}, "IoU", bins=10)
    assert all(f">{word}<" in svg for word in ("box", "mask", "IoU", "samples"))
    parsed(svg)


def test_report_when_matplotlib_is_missing_then_it_says_how_charts_come_into_it(
    fake_grounder, make_sample, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    data = [make_sample(0, "10 10 0.9")]
    with PredictionLog(tmp_path / "predictions.jsonl") as log:
        result = evaluate(fake_grounder(), data, log=log)
    write_html(result, tmp_path / "report.html", log, data, fake_grounder())
    text = (tmp_path / "report.html").read_text()
    assert "pip install &#x27;deixis[plots]&#x27;" in text
    assert "<svg" not in text
    assert "<h2>Best</h2>" in text
