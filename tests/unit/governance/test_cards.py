"""Model cards without a database: the format and its limits, drafts, differences, completeness, and what is painted."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelyard_governance.cards import charts, html, pdf
from modelyard_governance.cards.content import (
    WANTED,
    completeness,
    differences,
    dump,
    merged,
    parse,
)
from modelyard_governance.cards.page import MOST_SHAPES, Chart, Page, Table, lay_out
from modelyard_governance.cards.prefill import Facts, draft
from modelyard_kit.errors import InvalidField, LimitExceeded
from modelyard_kit.limits import LIMITS

LINE = {
    "name": "loss",
    "type": "linear_graph",
    "value": [[0, 1.0], [1, 0.5], [2, 0.25]],
    "x_axis_name": "epoch",
}
BARS = {
    "name": "recall",
    "type": "bar_chart",
    "value": [1, 0.5],
    "x_axis_name": ["a", "b"],
    "y_axis_name": "r",
}
MATRIX = {"name": "confusion", "type": "matrix", "value": [[5, 1], [0, 4]], "y_axis_name": ["a", "b"]}
SINGLE = [
    {"name": "accuracy", "type": "number", "value": 0.5, "notes": "of five"},
    {"name": "best", "type": "string", "value": "a"},
    {"name": "fair", "type": "boolean", "value": True},
]


def evaluation(*metrics: Any) -> dict[str, Any]:
    return {
        "evaluation_details": [{"name": "e", "metric_groups": [{"name": "g", "metric_data": list(metrics)}]}]
    }


def job(**fields: Any) -> dict[str, Any]:
    return {"training_details": {"training_job_details": fields}}


def overview(**fields: Any) -> dict[str, Any]:
    return {"model_overview": fields}


WHOLE: dict[str, Any] = {
    "model_overview": {
        "model_name": "prod.ml.iris",
        "model_version": 3,
        "model_description": "Sorts irises.",
        "model_creator": "ada",
        "model_owner": "ml",
        "model_artifact": ["sha256:ab"],
        "algorithm_type": "logistic regression",
        "problem_type": "classification",
        "inference_environment": {"container_image": ["i"]},
    },
    "model_package_details": {
        "model_package_name": "iris",
        "model_approval_status": "Approved",
        "created_by": {"user_profile_name": "ada"},
        "source_algorithms": [{"algorithm_name": "a"}],
        "inference_specification": {"containers": [{"image": "i"}]},
    },
    "intended_uses": {
        "purpose_of_model": "p",
        "intended_uses": "i",
        "factors_affecting_model_efficiency": "f",
        "risk_rating": "Low",
        "explanations_for_risk_rating": "e",
    },
    "business_details": {"business_problem": "b", "business_stakeholders": "s", "line_of_business": "l"},
    "training_details": {
        "objective_function": {"function": {"function": "Minimize", "facet": "loss"}, "notes": "n"},
        "training_observations": "o",
        "training_job_details": {
            "training_arn": "arn",
            "training_datasets": ["d"],
            "training_environment": {"container_image": ["i"]},
            "training_metrics": [{"name": "m", "value": 1.5}],
            "user_provided_training_metrics": [{"name": "m", "value": 2, "notes": "n"}],
            "hyper_parameters": [{"name": "h", "value": ""}],
            "user_provided_hyper_parameters": [{"name": "h"}],
        },
    },
    **evaluation(LINE, BARS, MATRIX, *SINGLE),
    "additional_information": {
        "ethical_considerations": "e",
        "caveats_and_recommendations": "c",
        "custom_details": {"k": "v"},
    },
}


def refused(card: Any) -> list[str]:
    """Return the fields that a refusal names; none if the card is taken."""
    try:
        parse(json.dumps(card))
    except InvalidField as error:
        return [violation.field for violation in error.violations]
    return []


def test_a_card_of_everything_is_taken_as_it_is() -> None:
    assert parse(json.dumps(WHOLE)) == WHOLE
    assert parse(dump(WHOLE)) == WHOLE
    assert parse("{}") == {}


@pytest.mark.parametrize("wrapper", ["Content", "ModelCardContent"])
def test_as_the_api_of_sagemaker_wraps_it(wrapper: str) -> None:
    wrapped = {"ModelCardName": "x", wrapper: json.dumps(WHOLE), "ModelCardStatus": "Approved"}
    assert parse(json.dumps(wrapped)) == WHOLE
    assert parse(json.dumps({wrapper: WHOLE})) == WHOLE
    assert refused(wrapped | {"ModelCardStatus": "Perhaps"}) == ["ModelCardStatus"]
    assert refused({wrapper: "{"}) == [wrapper]


_NAMED = [{"name": "m", "value": 1}]


@pytest.mark.parametrize(
    ("make", "maximum", "field"),
    [
        (lambda n: overview(model_artifact=["a"] * n), 15, "model_overview.model_artifact"),
        (lambda n: overview(model_description="a" * n), 1_024, "model_overview.model_description"),
        (
            lambda n: overview(inference_environment={"container_image": ["a"] * n}),
            15,
            "model_overview.inference_environment.container_image",
        ),
        (lambda n: {"intended_uses": {"purpose_of_model": "a" * n}}, 2_048, "intended_uses.purpose_of_model"),
        (
            lambda n: {"business_details": {"line_of_business": "a" * n}},
            2_048,
            "business_details.line_of_business",
        ),
        (
            lambda n: job(training_datasets=["a"] * n),
            15,
            "training_details.training_job_details.training_datasets",
        ),
        (
            lambda n: job(training_environment={"container_image": ["a"] * n}),
            15,
            "training_details.training_job_details.training_environment.container_image",
        ),
        (
            lambda n: job(training_metrics=_NAMED * n),
            50,
            "training_details.training_job_details.training_metrics",
        ),
        (
            lambda n: job(user_provided_training_metrics=_NAMED * n),
            50,
            "training_details.training_job_details.user_provided_training_metrics",
        ),
        (
            lambda n: job(hyper_parameters=[{"name": "h"}] * n),
            100,
            "training_details.training_job_details.hyper_parameters",
        ),
        (
            lambda n: job(user_provided_hyper_parameters=[{"name": "h"}] * n),
            100,
            "training_details.training_job_details.user_provided_hyper_parameters",
        ),
        (
            lambda n: job(hyper_parameters=[{"name": "h", "value": "v" * n}]),
            255,
            "training_details.training_job_details.hyper_parameters[0].value",
        ),
        (lambda n: {"evaluation_details": [{"name": "n" * n}]}, 63, "evaluation_details[0].name"),
        (
            lambda n: {"evaluation_details": [{"name": "n", "datasets": ["d"] * n}]},
            10,
            "evaluation_details[0].datasets",
        ),
        (
            lambda n: {"evaluation_details": [{"name": "n", "evaluation_observation": "o" * n}]},
            2_096,
            "evaluation_details[0].evaluation_observation",
        ),
        (
            lambda n: evaluation(SINGLE[0] | {"name": "n" * n}),
            255,
            "evaluation_details[0].metric_groups[0].metric_data[0].name",
        ),
        (
            lambda n: evaluation(SINGLE[1] | {"value": "n" * n}),
            63,
            "evaluation_details[0].metric_groups[0].metric_data[0].value",
        ),
        (
            lambda n: evaluation(MATRIX | {"value": [[1]] * n}),
            20,
            "evaluation_details[0].metric_groups[0].metric_data[0].value",
        ),
        (
            lambda n: evaluation(MATRIX | {"value": [[1] * n]}),
            20,
            "evaluation_details[0].metric_groups[0].metric_data[0].value[0]",
        ),
        (
            lambda n: evaluation(LINE | {"x_axis_name": "x" * n}),
            63,
            "evaluation_details[0].metric_groups[0].metric_data[0].x_axis_name",
        ),
        (
            lambda n: {"additional_information": {"custom_details": {"k": "v" * n}}},
            1_024,
            "additional_information.custom_details.k",
        ),
        (
            lambda n: {"model_package_details": {"source_algorithms": [{"algorithm_name": "a"}] * n}},
            1,
            "model_package_details.source_algorithms",
        ),
        (
            lambda n: {
                "model_package_details": {"inference_specification": {"containers": [{"image": "i"}] * n}}
            },
            15,
            "model_package_details.inference_specification.containers",
        ),
    ],
)
def test_every_limit_counts_and_is_named(make: Any, maximum: int, field: str) -> None:
    assert refused(make(maximum)) == []
    assert refused(make(maximum + 1)) == [field]
    with pytest.raises(InvalidField, match=str(maximum)):
        parse(json.dumps(make(maximum + 1)))


@pytest.mark.parametrize(
    ("card", "fields"),
    [
        ([], ["content"]),
        ({"model_overveiw": {}}, ["model_overveiw"]),
        (overview(model_name=3), ["model_overview.model_name"]),
        (overview(model_version=0), ["model_overview.model_version"]),
        (overview(model_version=True), ["model_overview.model_version"]),
        (overview(model_version="1"), ["model_overview.model_version"]),
        (overview(model_artifact="a"), ["model_overview.model_artifact"]),
        (overview(model_name="a\0"), ["model_overview.model_name"]),
        ({"intended_uses": {"risk_rating": "low"}}, ["intended_uses.risk_rating"]),
        (
            {"training_details": {"objective_function": {"function": {"function": "Guess"}}}},
            ["training_details.objective_function.function.function"],
        ),
        ({"training_details": {"objective_function": "loss"}}, ["training_details.objective_function"]),
        (
            job(training_metrics=[{"name": "m"}]),
            ["training_details.training_job_details.training_metrics[0].value"],
        ),
        ({"evaluation_details": {}}, ["evaluation_details"]),
        ({"evaluation_details": [{}]}, ["evaluation_details[0].name"]),
        ({"evaluation_details": [{"name": ""}]}, ["evaluation_details[0].name"]),
        (evaluation({"type": "pie"}), ["evaluation_details[0].metric_groups[0].metric_data[0].type"]),
        (evaluation({"type": []}), ["evaluation_details[0].metric_groups[0].metric_data[0].type"]),
        (evaluation(7), ["evaluation_details[0].metric_groups[0].metric_data[0]"]),
        (
            evaluation(SINGLE[0] | {"value": "high"}),
            ["evaluation_details[0].metric_groups[0].metric_data[0].value"],
        ),
        (
            evaluation(LINE | {"value": [[1]]}),
            ["evaluation_details[0].metric_groups[0].metric_data[0].value[0]"],
        ),
        (evaluation(LINE | {"value": []}), ["evaluation_details[0].metric_groups[0].metric_data[0].value"]),
        (
            evaluation(BARS | {"x_axis_name": "a"}),
            ["evaluation_details[0].metric_groups[0].metric_data[0].x_axis_name"],
        ),
    ],
)
def test_mistakes_are_named(card: Any, fields: list[str]) -> None:
    assert refused(card) == fields


def test_every_mistake_is_named_up_to_a_bound() -> None:
    assert refused({f"f{number}": 1 for number in range(5)}) == [f"f{number}" for number in range(5)]
    assert len(refused({f"f{number}": 1 for number in range(500)})) == 20


@pytest.mark.parametrize("text", ["", "{", '{"a": NaN}', "[" * 5_000, '{"a": "\\ud800"}'])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(InvalidField):
        parse(text)


def test_the_length_has_a_limit() -> None:
    maximum = LIMITS["card_length"].maximum
    card = json.dumps(WHOLE)
    assert parse(card + " " * (maximum - len(card))) == WHOLE
    with pytest.raises(LimitExceeded):
        parse(card + " " * (maximum - len(card) + 1))


def test_completeness_says_what_is_missing() -> None:
    assert completeness(WHOLE).missing == ()
    assert completeness(WHOLE).fraction == 1.0
    assert completeness({}).missing == WANTED
    assert completeness({}).fraction == 0.0
    part = completeness(overview(model_name="a", model_owner="", model_artifact=[]))
    assert "model_overview.model_name" not in part.missing
    assert {"model_overview.model_owner", "model_overview.model_artifact"} <= set(part.missing)
    assert part.fraction == pytest.approx(1 / len(WANTED))


def test_differences_by_path() -> None:
    assert differences(WHOLE, WHOLE) == []
    changed = json.loads(json.dumps(WHOLE))
    changed["intended_uses"]["risk_rating"] = "High"
    del changed["business_details"]["line_of_business"]
    changed["evaluation_details"][0]["metric_groups"][0]["metric_data"][0]["value"] = [[0, 2]]
    changed["model_overview"]["model_artifact"].append("sha256:cd")
    assert [(change.path, change.before, change.after) for change in differences(WHOLE, changed)] == [
        ("business_details.line_of_business", '"l"', ""),
        (
            "evaluation_details[0].metric_groups[0].metric_data[0].value",
            "[[0,1.0],[1,0.5],[2,0.25]]",
            "[[0,2]]",
        ),
        ("intended_uses.risk_rating", '"Low"', '"High"'),
        ("model_overview.model_artifact[1]", "", '"sha256:cd"'),
    ]
    assert len(differences({}, WHOLE)) == len(differences(WHOLE, {})) > 30


def test_a_draft_fills_gaps_and_overwrites_nothing() -> None:
    facts = Facts(
        id="v1",
        model="prod.ml.iris",
        number=3,
        description="d" * 5_000,
        author="ada",
        owner="ml",
        artifact="sha256:ab",
        runtime="sklearn",
        use_case="regression",
        hyperparameters={"C": 1.0, "solver": "lbfgs"},
        metrics={
            "accuracy": 0.5,
            "curve": [[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]],
            "confusion": [[1.0, 2.0], [3.0, 4.0]],
            "by_class": [1.0, 2.0],
            "fair": True,
            "best": "a",
            "nested": {"a": 1},
            "huge": float("inf"),
        },
        tags={"team": "ml"},
        packages={"numpy": "2.0"},
        training_data=["s3://a"] * 20,
        test_data=["s3://b"],
        upstream=["model version prod.ml.base/1"],
    )
    made = draft(facts)
    assert parse(dump(made)) == made
    assert made["model_overview"]["algorithm_type"] == "sklearn"
    assert len(made["model_overview"]["model_description"]) == 1_024
    details = made["training_details"]["training_job_details"]
    assert details["user_provided_training_metrics"] == [{"name": "accuracy", "value": 0.5}]
    assert details["user_provided_hyper_parameters"][0] == {"name": "C", "value": "1"}
    (group,) = made["evaluation_details"][0]["metric_groups"]
    assert {metric["name"]: metric["type"] for metric in group["metric_data"]} == {
        "best": "string",
        "by_class": "bar_chart",
        "confusion": "matrix",
        "curve": "linear_graph",
        "fair": "boolean",
    }
    assert made["additional_information"]["custom_details"]["tag: team"] == "ml"
    own = {"model_overview": {"model_owner": "eve"}, "intended_uses": {"risk_rating": "Low"}}
    both = merged(made, own)
    assert both["model_overview"]["model_owner"] == "eve"
    assert both["model_overview"]["model_name"] == "prod.ml.iris"
    assert both["intended_uses"] == {"risk_rating": "Low"}
    assert draft(Facts(id="v", model="m", number=1)) == {
        "model_overview": {"model_id": "v", "model_name": "m", "model_version": 1}
    }


def page(card: dict[str, Any]) -> Page:
    time = datetime(2026, 1, 2, tzinfo=UTC)
    return lay_out(card, completeness(card), version="prod.ml.iris/3", revision=4, author="ada", time=time)


class Seen(HTMLParser):
    """Reads a document as a browser does, and refuses what is not closed."""

    VOID = ("meta", "br")

    def __init__(self, document: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(document.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_html_has_everything_and_a_chart_for_each_kind() -> None:
    seen = Seen(html.render(page(WHOLE)))
    text = "\n".join(seen.text)
    for wanted in (
        "prod.ml.iris",
        "Low risk",
        "Minimize loss",
        "sha256:ab",
        "accuracy",
        "of five",
        "Revision 4",
    ):
        assert wanted in text, wanted
    drawn = [attributes["aria-label"] for tag, attributes in seen.tags if tag == "svg"]
    assert [str(label).partition(" ")[0] for label in drawn] == ["Line", "2", "Matrix"]


def test_no_two_tables_of_a_section_are_called_the_same() -> None:
    for section in page(WHOLE).sections:
        titles = [block.title for block in section.blocks if isinstance(block, Table)]
        assert len(set(titles)) == len(titles), titles


def _hostile(value: Any, text: str) -> Any:
    """Put a text into every place of a card that takes one."""
    if isinstance(value, dict):
        return {
            key: item if key in ("type", "risk_rating") else _hostile(item, text)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_hostile(item, text) for item in value]
    return text if isinstance(value, str) else value


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "' onload='alert(1)",
        "</style><script>x</script>",
        "]]><!--",
        "&lt;b&gt;",
    ],
)
def test_no_text_gets_out_of_its_place(text: str) -> None:
    card = _hostile(WHOLE, text)
    card["additional_information"]["custom_details"] = {text: text}
    seen, plain = Seen(html.render(page(card))), Seen(html.render(page(WHOLE)))
    # Texts may come or go with their lengths, but no element is new and none has other attributes.
    shape = {(tag, tuple(sorted(attributes))) for tag, attributes in seen.tags}
    assert shape <= {(tag, tuple(sorted(attributes))) for tag, attributes in plain.tags}
    assert not {tag for tag, _ in seen.tags} & {"script", "img", "a", "link", "iframe"}
    assert text in "".join(seen.text)
    assert pdf.render(page(card)).startswith(b"%PDF-")


def test_html_needs_nothing_else() -> None:
    document = html.render(page(WHOLE)).decode()
    assert not re.search(r"(\ssrc=|href|url\(|@import|https?:)", document)
    assert "default-src 'none'" in document


def test_pdf_has_pages_and_says_what_its_font_lacks() -> None:
    plain = pdf.render(page(WHOLE))
    assert plain.startswith(b"%PDF-")
    assert plain.rstrip().endswith(b"%%EOF")
    assert pdf.render(page(WHOLE)) == plain
    foreign = overview(model_name="花の模型")
    assert pdf._outside(page(foreign))
    assert not pdf._outside(page(WHOLE))
    assert pdf.render(page(foreign)).startswith(b"%PDF-")


def test_the_longest_texts_fit_the_pages_of_a_pdf() -> None:
    card = {
        "intended_uses": {"purpose_of_model": "word " * 409, "intended_uses": "x" * 2_048},
        "evaluation_details": [{"name": "e", "evaluation_observation": "\n".join("x" * 1_048)}],
        **job(user_provided_training_metrics=[{"name": "n" * 255, "value": 1, "notes": "\n" * 1_024}] * 5),
    }
    assert pdf.render(page(parse(json.dumps(card)))).startswith(b"%PDF-")


def test_charts_that_are_too_many_are_named_and_not_drawn() -> None:
    matrix = MATRIX | {"name": "m", "value": [[1] * 20] * 20}
    laid_out = page(parse(json.dumps(evaluation(*[matrix] * 50))))
    (section,) = laid_out.sections
    drawings = [block.drawing for block in section.blocks if isinstance(block, Chart)]
    assert 0 < sum(len(drawing.shapes) for drawing in drawings) <= MOST_SHAPES
    assert sum("not drawn" in getattr(block, "text", "") for block in section.blocks) == 50 - len(drawings)
    assert len(html.render(laid_out)) < 2**20


NUMBERS = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(10**20), 10**20))


@given(st.lists(st.tuples(NUMBERS, NUMBERS).map(list), min_size=1, max_size=60))
def test_any_line_is_drawn_inside_its_frame(points: list[list[float]]) -> None:
    inside(charts.draw(LINE | {"value": points}))


@given(st.lists(NUMBERS, min_size=1, max_size=40))
@example([5e-324])
@example([1e10, math.nextafter(1e10, math.inf)])
def test_any_bars_are_drawn_inside_their_frame(values: list[float]) -> None:
    inside(charts.draw(BARS | {"value": values}))


@given(st.lists(st.lists(NUMBERS, min_size=1, max_size=20), min_size=1, max_size=20))
def test_any_matrix_is_drawn_inside_its_frame(rows: list[list[float]]) -> None:
    inside(charts.draw(MATRIX | {"value": rows}))


def inside(drawing: charts.Drawing | None) -> None:
    assert drawing is not None
    for shape in drawing.shapes:
        places = shape.points if isinstance(shape, charts.Line) else [(shape.x, shape.y)]
        if isinstance(shape, charts.Box):
            places = [*places, (shape.x + shape.width, shape.y + shape.height)]
        for x, y in places:
            assert -1 <= x <= drawing.width + 1, shape
            assert -1 <= y <= drawing.height + 1, shape
    assert html.svg(drawing).startswith("<svg")
