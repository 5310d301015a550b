"""A render ticket and its answer: how long they are, and what is taken for one."""

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures import make
from imgsvc.access.render_tokens import RenderTokenExpired, RenderTokens
from imgsvc.jobs.cluster.messages import FROM_GATEWAY, word
from imgsvc.jobs.cluster.ticket import RenderTicket, TicketAnswer, answer_to
from imgsvc.jobs.lanes.messages import Task
from imgsvc.jobs.retry import Failure
from imgsvc.settings import Settings
from tests.support.render_task import render_task

JOB = "a3a1f6c2-54a1-4d5c-9a39-0d8a8a0b8f10"
RENDERED = {
    "width": 4,
    "height": 3,
    "dominant_colour": "",
    "frames": 1,
    "variants": [],
    "thumbhash": "",
    "source": None,
}


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return render_task(tmp_path, make.tiny(), Settings().images.recipe)


def answer(**members: Any) -> str:
    return json.dumps({"ticket": "job.1", **members})


def test_ticket_of_the_default_variants_is_shorter_than_2_kb(task: Task) -> None:
    names = Settings().images.sizes
    token = RenderTokens().issue(JOB, 1_000_000, 60, dict.fromkeys(names, 1 << 30))
    text = RenderTicket.of(task, 10_000_000, f"https://images.example.org/api/v1/render/{token}").model_dump_json()
    assert len(text) < 2048
    assert RenderTicket.model_validate_json(text).task("source", "folder").recipe == task.recipe
    assert task.source not in text and task.folder not in text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        answer(outcome="rendered"),
        answer(outcome="failed", rendering=RENDERED),
        answer(outcome="lost", reason="tired"),
        answer(outcome="lost", reason="refused", rendering=RENDERED),
        answer(outcome="no_preview"),
        answer(outcome="rendered", rendering=RENDERED, more=1),
        json.dumps({"ticket": "job.2", "outcome": "rendered", "rendering": RENDERED}),
        answer(outcome="failed", error={"code": "not_found", "message": ""}),
    ],
)
def test_what_is_no_answer_to_it(task: Task, text: str) -> None:
    with pytest.raises(ValueError):
        answer_to(task, text)


@pytest.mark.parametrize("code", ["image_unreadable", "timeout", "worker_crashed", "internal_error", "memory_limit"])
def test_failures_arrive_as_they_left_without_foreign_words(task: Task, code: str) -> None:
    text = answer(outcome="failed", error={"code": code, "message": "<script>alert(1)</script>"})
    failure = answer_to(task, text).result(task)
    assert isinstance(failure, Failure)
    assert (failure.code, failure.death) == (code, code == "worker_crashed")
    assert "script" not in failure.message


def test_answers_of_a_lane_are_read_as_they_were_written(task: Task) -> None:
    ticket = RenderTicket.of(task, 1, "http://localhost/api/v1/render/x")
    failure = Failure("image_unreadable", "The PNG has no pixels.")
    sent = TicketAnswer.of(ticket, failure).model_dump_json()
    assert answer_to(task, sent).result(task) == failure


def test_only_this_service_s_clock_judges_the_deadline() -> None:
    """A ticket names no moment, so a machine whose clock is wrong does nothing else."""
    moment = 1_000_000.0
    tokens = RenderTokens(lambda: moment)
    token = tokens.issue(JOB, 1, 60, {"small": 1})
    moment += 59
    assert tokens.verify(token).job_id == JOB
    moment += 2
    with pytest.raises(RenderTokenExpired):
        tokens.verify(token)
    assert not {name for name in RenderTicket.model_fields if "time" in name or "dead" in name} - {"time_limit"}


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        '{"kind": "start"}',
        '{"kind": "answered", "id": "x"}',
        '{"kind": "dropped", "id": "x", "begun": 1, "reason": ""}',
        '{"kind": "unreachable", "reason": "two\\nlines"}',
        '{"kind": "machines", "machines": [{"name": "m"}]}',
        '{"kind": "connected", "fingerprint": "../../etc", "cage": "", "missing": ""}',
    ],
)
def test_what_is_no_line_of_the_gateway(line: str) -> None:
    with pytest.raises(ValueError):
        FROM_GATEWAY.validate_json(line)


def test_any_text_becomes_a_word() -> None:
    assert word("two\nlines é") == "two\\nlines \\xe9" and len(word("x" * 1000)) == 200
