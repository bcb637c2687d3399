"""Annotation through a server that speaks the protocol, with its failures."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from chat_server import GOOD, PAIR, Reply, chat_server
from robot_data import INSTRUCTIONS, episode, lerobot_v3

from instructvla_training import cli
from instructvla_training.data.annotate.endpoint import Endpoint, EndpointError, RateLimit, Settings, Usage
from instructvla_training.data.annotate.run import Limits, annotate
from instructvla_training.data.annotate.schema import AnswerError, parse
from instructvla_training.data.annotate.work import Job
from instructvla_training.data.formats.episode import DataError
from instructvla_training.data.formats.lerobot_writer import write_lerobot
from instructvla_training.data.formats.opening import Reading, open_dataset
from instructvla_training.language import vla_it

KEY = "sk-a-secret-of-the-test"
FAST = {"Retry-After": "0.01"}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return lerobot_v3(tmp_path_factory.mktemp("data") / "made", episodes=3)


def _job(data: Path, url: str, **settings) -> Job:
    quick = {"requests_per_minute": 1e6, "timeout_s": 20.0} | settings
    return Job(data, Reading(), Settings(base_url=url, model="describer", **quick))


def test_every_episode_is_annotated_and_joins_its_dataset_again(data, tmp_path):
    with chat_server(lambda _: Reply()) as server:
        records = annotate(_job(data, server.url), tmp_path, Limits(workers=2, price_input=2.0, price_output=8.0))
    assert sorted(record.number for record in records) == [0, 1, 2]
    joined = open_dataset(data, Reading(annotations=tmp_path / "vla_it.json"))
    found = joined[1].annotation
    assert found.caption == GOOD["Caption"] and found.qa[0].question == PAIR["question"]
    assert len(found.move_primitive) == 11
    content = server.requests[0]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url"] * 3 + ["text"]
    assert all(part["image_url"]["url"].startswith("data:image/jpeg;base64,") for part in content[:3])
    assert any(INSTRUCTIONS[0] in request["messages"][0]["content"][3]["text"] for request in server.requests)
    text = (tmp_path / "report.md").read_text()
    assert "3000 input and 300 output tokens, cost 0.0084" in text and "| CC | 3 |" in text


def test_a_second_run_asks_only_for_what_is_missing(data, tmp_path):
    with chat_server(lambda _: Reply()) as server:
        annotate(_job(data, server.url), tmp_path, Limits(limit=2))
        with (tmp_path / "annotations.jsonl").open("a") as file:
            file.write('{"number": 2, "file_pa')  # as a kill leaves it
        assert len(annotate(_job(data, server.url), tmp_path, Limits())) == 3
        assert len(server.requests) == 3
        annotate(_job(data, server.url), tmp_path, Limits())
        assert len(server.requests) == 3
    assert len(vla_it.read(tmp_path / "vla_it.json")) == 3


def test_another_model_is_not_mixed_in(data, tmp_path):
    with chat_server(lambda _: Reply()) as server:
        annotate(_job(data, server.url), tmp_path, Limits(limit=1))
        with pytest.raises(DataError, match="another count"):
            annotate(_job(data, server.url, count=5), tmp_path, Limits())


def test_too_many_requests_are_repeated_when_the_server_says(data, tmp_path):
    with chat_server(lambda n: Reply(status=429, headers=FAST) if n < 3 else Reply()) as server:
        records = annotate(_job(data, server.url), tmp_path, Limits(workers=1, limit=1))
    assert len(records) == 1 and len(server.requests) == 4


def test_a_server_that_stays_broken_fails_the_episode_and_not_the_run(data, tmp_path):
    broken = {0, 1}
    with chat_server(lambda n: Reply(status=500, headers=FAST) if n in broken else Reply()) as server:
        records = annotate(_job(data, server.url, repeats=1), tmp_path, Limits(workers=1))
        assert [record.number for record in records] == [1, 2]
        assert "InternalServerError after 1 repeats" in (tmp_path / "failed.jsonl").read_text()
        assert "2 episodes annotated, 1 failed" in (tmp_path / "report.md").read_text()
        assert len(annotate(_job(data, server.url), tmp_path, Limits())) == 3
    assert (tmp_path / "failed.jsonl").read_text() == ""


def test_no_answer_in_time_fails_the_episode(data, tmp_path):
    with chat_server(lambda _: Reply(hang=True)) as server:
        annotate(_job(data, server.url, timeout_s=0.2, repeats=0), tmp_path, Limits(workers=1, limit=1))
    assert "APITimeoutError" in (tmp_path / "failed.jsonl").read_text()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I cannot see that.", "no JSON object"),
        ('{"Caption": "A lemon on a table.", "QA": [', "no JSON object"),
        ("{'Caption': 1}", "not valid JSON"),
        (json.dumps(GOOD | {"CC": []}), "CC: "),
        (json.dumps(GOOD | {"QA": [{"question": "A lemon", "answer": "yes"}]}), "question mark"),
        (json.dumps(GOOD | {"QA": [PAIR, PAIR]}), "same question twice"),
        (json.dumps(GOOD | {"CR": [{"question": "Put the lemon in the bowl.", "answer": "ok"}]}), "differently"),
    ],
)
def test_an_answer_of_no_use_is_asked_for_again_with_the_reason(data, tmp_path, text, reason):
    with chat_server(lambda n: Reply(text) if n == 0 else Reply(f"Here it is:\n{json.dumps(GOOD)}\nDone.")) as server:
        records = annotate(_job(data, server.url), tmp_path, Limits(workers=1, limit=1))
    assert records[0].usage == Usage(2, 2000, 200)
    assert [message["role"] for message in server.requests[1]["messages"]] == ["user", "assistant", "user"]
    assert reason in server.requests[1]["messages"][2]["content"]


def test_a_model_that_never_answers_well_is_given_up(data, tmp_path):
    with chat_server(lambda _: Reply("no")) as server:
        assert annotate(_job(data, server.url), tmp_path, Limits(workers=1, limit=1)) == []
    assert len(server.requests) == 3 and "no JSON object" in (tmp_path / "failed.jsonl").read_text()


def test_a_refused_key_ends_the_run_at_once(data, tmp_path):
    with chat_server(lambda _: Reply(status=401)) as server, pytest.raises(EndpointError, match="answers 401"):
        annotate(_job(data, server.url), tmp_path, Limits(workers=1))
    assert len(server.requests) == 1


def test_the_limit_of_cost_stops_the_run(data, tmp_path):
    with chat_server(lambda _: Reply()) as server:
        records = annotate(_job(data, server.url), tmp_path, Limits(workers=1, price_input=1e3, max_cost=1.5))
    assert len(records) == 2  # each costs 1.0


def test_the_key_is_sent_and_never_written_or_logged(data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with chat_server(lambda _: Reply()) as server:
        annotate(_job(data, server.url), tmp_path, Limits(limit=1))
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in caplog.text and all(KEY not in path.read_text() for path in tmp_path.iterdir())


def test_without_a_key_or_a_base_url_nothing_is_sent(data, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with chat_server(lambda _: Reply()) as server:
        arguments = ["data", "annotate", str(data), str(tmp_path / "out"), "--model", "m"]
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 2  # --base-url is required
        with pytest.raises(SystemExit, match="--api-key-env"):
            cli.main([*arguments, "--base-url", server.url])
        assert server.requests == []


def test_the_command_annotates(data, tmp_path, capsys):
    with chat_server(lambda _: Reply()) as server:
        words = ["--base-url", server.url, "--model", "m", "--limit", "1", "--requests-per-minute", "6000"]
        assert cli.main(["data", "annotate", str(data), str(tmp_path / "out"), *words]) == 0
    assert "1 episodes annotated" in capsys.readouterr().out


def test_requests_are_spread_evenly_over_time():
    now, slept = [0.0], []
    limit = RateLimit(30.0, lambda: now[0], slept.append)
    for _ in range(3):
        limit.wait()
    assert slept == [2.0, 4.0]
    now[0] = 10.0
    limit.wait()
    assert slept == [2.0, 4.0]


def test_parsing_names_the_place_that_is_wrong():
    with pytest.raises(AnswerError, match=r"QA\.0\.answer"):
        parse(json.dumps(GOOD | {"QA": [{"question": "What?", "answer": ""}]}), "put the lemon in the bowl")


@pytest.mark.slow
def test_a_ray_cluster_annotates_with_the_same_command(data, tmp_path):
    pytest.importorskip("ray")
    with chat_server(lambda _: Reply()) as server:
        assert len(annotate(_job(data, server.url), tmp_path, Limits(workers=2), ray_address="local")) == 3


# ---- endpoints that answer something else -------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>log in</html>", "text/html"),
        (b'{"id": 1, "choi', "application/json"),
        (b"null", "application/json"),
        (b'{"error": {"message": "no such route"}}', "application/json"),
    ],
)
def test_an_answer_that_is_no_completion_fails_its_episode_and_several_end_the_run(tmp_path, body, kind):
    many = lerobot_v3(tmp_path / "many", episodes=7, length=3)
    with (
        chat_server(lambda _: Reply(raw=body, headers={"Content-Type": kind})) as server,
        pytest.raises(EndpointError, match=r"refused 5 episodes one after the other.*--base-url"),
    ):
        annotate(_job(many, server.url), tmp_path / "out", Limits(workers=1))
    assert len(server.requests) == 5
    assert "expected a chat completion" in (tmp_path / "out" / "failed.jsonl").read_text()


@pytest.mark.parametrize("status", [400, 413, 422])
def test_an_episode_that_the_endpoint_refuses_fails_alone(data, tmp_path, status):
    with chat_server(lambda n: Reply(status=status) if n == 0 else Reply()) as server:
        records = annotate(_job(data, server.url), tmp_path, Limits(workers=1))
    assert [record.number for record in records] == [1, 2] and len(server.requests) == 3
    assert f"refused with {status}" in (tmp_path / "failed.jsonl").read_text()


def test_episodes_without_an_instruction_cost_nothing(tmp_path):
    texts = ["", "pick up the can", ""]
    episodes = [episode(n, 4, instruction=text) for n, text in enumerate(texts)]
    write_lerobot(tmp_path / "silent", episodes, fps=5.0, codec="h264")
    with chat_server(lambda _: Reply()) as server:
        records = annotate(_job(tmp_path / "silent", server.url), tmp_path / "out", Limits(workers=1))
    assert [record.number for record in records] == [1] and len(server.requests) == 1
    assert (tmp_path / "out" / "failed.jsonl").read_text().count("no instruction") == 2


def test_the_limit_of_cost_counts_all_runs_and_what_failed(data, tmp_path):
    limits = Limits(workers=1, price_input=1e3, max_cost=4.5)  # each answer costs 1.0
    with chat_server(lambda n: Reply("no") if n < 3 else Reply()) as server:
        annotate(_job(data, server.url), tmp_path, limits)  # three for nothing, two more
        assert len(server.requests) == 5
        annotate(_job(data, server.url), tmp_path, limits)
        assert len(server.requests) == 5
    assert "5 answers" in (tmp_path / "report.md").read_text() and "cost 5.0000" in (tmp_path / "report.md").read_text()


def test_what_failed_is_remembered_and_tried_again_after_all_others(data, tmp_path):
    with chat_server(lambda n: Reply(status=400) if n == 0 else Reply()) as server:
        annotate(_job(data, server.url), tmp_path, Limits(workers=1, limit=1))
        annotate(_job(data, server.url), tmp_path, Limits(workers=1, limit=1))
        rows = [json.loads(line) for line in (tmp_path / "failed.jsonl").read_text().splitlines()]
        assert [row["number"] for row in rows] == [0]
        assert len(annotate(_job(data, server.url), tmp_path, Limits(workers=1))) == 3
    assert (tmp_path / "failed.jsonl").read_text() == ""


def test_repeats_keep_to_the_rate_and_wait_twice_as_long_each_time_where_the_server_does_not_say(data):
    pauses: list[float] = []
    with chat_server(lambda _: Reply(status=503)) as server:
        endpoint = Endpoint(_job(data, server.url, repeats=3).settings, sleep=pauses.append)
        waited = []
        endpoint._limit.wait = lambda: waited.append(1)
        answer = endpoint.annotate([{"role": "user", "content": "?"}], "pick up the can")
    assert "InternalServerError after 3 repeats" in answer.problem
    assert pauses == [0.5, 1.0, 2.0] and len(waited) == len(server.requests) == 4
