"""Annotation through a server that speaks the protocol, with its failures."""

from __future__ import annotations

import json
import logging
import os
import sys
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from chat_server import GOOD, PAIR, Reply, chat_server
from robot_data import INSTRUCTIONS, bridge, episode, lerobot_v3

from instructvla_training import cli
from instructvla_training.data.annotate import work
from instructvla_training.data.annotate.endpoint import Endpoint, EndpointError, RateLimit, Settings, Usage
from instructvla_training.data.annotate.run import Limits, annotate
from instructvla_training.data.annotate.schema import AnswerError, parse
from instructvla_training.data.annotate.work import Job
from instructvla_training.data.formats import tfrecord
from instructvla_training.data.formats.episode import DataError
from instructvla_training.data.formats.lerobot_writer import write_lerobot
from instructvla_training.data.formats.opening import Reading, open_dataset
from instructvla_training.language import vla_it
from instructvla_training.lock import only_run
from instructvla_training.refusals import RunError

pytestmark = pytest.mark.usefixtures("own_cache")
KEY = "sk-a-secret-of-the-test"
FAST = {"Retry-After": "0.01"}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return lerobot_v3(tmp_path_factory.mktemp("data") / "made", episodes=3)


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    return lerobot_v3(tmp_path_factory.mktemp("many") / "many", episodes=7, length=3)


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
def test_an_answer_that_is_no_completion_fails_its_episode_and_several_end_the_run(many, tmp_path, body, kind):
    with (
        chat_server(lambda _: Reply(raw=body, headers={"Content-Type": kind})) as server,
        pytest.raises(EndpointError, match=r"5 episodes one after the other.*--base-url"),
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
    assert "1 episodes annotated, 0 failed, 2 without an instruction" in (tmp_path / "out" / "report.md").read_text()


def test_the_limit_of_cost_counts_all_runs_and_what_failed(data, tmp_path):
    limits = Limits(workers=1, price_input=1e3, max_cost=4.5)  # each answer costs 1.0
    with chat_server(lambda n: Reply("no") if n < 3 else Reply()) as server:
        annotate(_job(data, server.url), tmp_path, limits)  # three for nothing, two more
        assert len(server.requests) == 5
        annotate(_job(data, server.url), tmp_path, limits)
        assert len(server.requests) == 5
    assert "5 answers" in (tmp_path / "report.md").read_text() and "cost 5.0000" in (tmp_path / "report.md").read_text()


def test_a_limit_of_cost_without_a_price_is_refused_before_anything_is_asked(data, tmp_path):
    with chat_server(lambda _: Reply()) as server:
        with pytest.raises(SystemExit, match=r"found --max-cost 2 and no price.*--price-input"):
            cli.main(_command(data, tmp_path / "out", server.url, "--max-cost", "2"))
        assert server.requests == [] and not (tmp_path / "out").exists()


def test_that_a_server_does_not_tell_its_tokens_is_said_once(data, tmp_path, caplog):
    with chat_server(lambda n: Reply(counted=n == 0)) as server:
        annotate(_job(data, server.url), tmp_path, Limits(workers=1, price_input=1e3, max_cost=9.0))
    assert len(server.requests) == 3 and caplog.text.count("--max-cost ends nothing") == 1


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


# ---- endpoints that are not there ---------------------------------------------------------------------

NOBODY = "http://127.0.0.1:9/v1"


def _command(data: Path, folder: Path, url: str, *more: str) -> list[str]:
    words = ["--base-url", url, "--model", "describer", "--requests-per-minute", "1e6", *more]
    return ["data", "annotate", str(data), str(folder), *words]


def test_an_endpoint_that_is_not_there_ends_the_run_and_what_is_done_stays(many, tmp_path):
    with chat_server(lambda _: Reply()) as server:
        annotate(_job(many, server.url), tmp_path, Limits(limit=1))
    with pytest.raises(EndpointError, match=rf"{NOBODY} .*did not answer 5 episodes.*refused\); .*check that it runs"):
        annotate(_job(many, NOBODY, repeats=0), tmp_path, Limits(workers=1))
    assert len((tmp_path / "failed.jsonl").read_text().splitlines()) == 5
    with chat_server(lambda _: Reply()) as server:
        assert len(annotate(_job(many, server.url), tmp_path, Limits())) == 7
        assert len(server.requests) == 6


def test_episodes_that_nobody_is_asked_about_do_not_hide_that_the_endpoint_is_not_there(tmp_path):
    episodes = [episode(n, 4, instruction="pick up the can" if n % 2 == 0 else "") for n in range(11)]
    write_lerobot(tmp_path / "gaps", episodes, fps=5.0, codec="h264")
    with pytest.raises(EndpointError, match="did not answer 5 episodes"):
        annotate(_job(tmp_path / "gaps", NOBODY, repeats=0), tmp_path / "out", Limits(workers=1))


@pytest.mark.parametrize("url", ["not-a-url", "ftp://host/v1", "http://", "http://host:port/v1", "http://[::1"])
def test_what_is_no_address_ends_the_command_at_once(data, tmp_path, url):
    with pytest.raises(SystemExit, match=r"expected an address such as .*correct --base-url"):
        cli.main(_command(data, tmp_path / "out", url))


def test_the_command_says_how_many_failed_and_why_and_its_exit_status_too(many, tmp_path, capsys, caplog):
    caplog.set_level(logging.INFO)
    answers = [Reply(status=400), Reply(status=413), Reply(status=413)]
    with chat_server(lambda n: answers[n] if n < 3 else Reply()) as server:
        command = _command(many, tmp_path / "out", server.url, "--workers", "1")
        assert cli.main(command) == 1
        assert "4 episodes annotated, 3 failed" in capsys.readouterr().out
        assert "3 episodes failed so far, 2 of them with: refused with 413" in caplog.text
        assert cli.main(command) == 0
    assert "7 episodes annotated, 0 failed" in capsys.readouterr().out


def test_that_an_episode_has_no_instruction_is_no_failure_to_the_exit_status(tmp_path):
    write_lerobot(tmp_path / "silent", [episode(0, 4, instruction="")], fps=5.0, codec="h264")
    assert cli.main(_command(tmp_path / "silent", tmp_path / "out", NOBODY)) == 0


def test_answers_that_came_with_a_refusal_are_kept():
    good, bad = Future(), Future()
    good.set_result(SimpleNamespace(number=4))
    bad.set_exception(EndpointError("answers 401"))
    results = work._results({good, bad})
    assert next(results).number == 4
    with pytest.raises(EndpointError):
        next(results)


# ---- the folder ---------------------------------------------------------------------------------------


def test_a_second_run_at_once_in_the_same_folder_is_refused(data, tmp_path):
    with chat_server(lambda _: Reply()) as server:
        with only_run(tmp_path), pytest.raises(RunError, match=rf"another run at work .*process {os.getpid()}"):
            annotate(_job(data, server.url), tmp_path, Limits())
        assert server.requests == []
        assert len(annotate(_job(data, server.url), tmp_path, Limits())) == 3


@pytest.mark.parametrize("torn", [0, 1])
def test_episodes_that_share_their_key_are_refused_before_anything_is_asked(tmp_path, torn):
    root = bridge(tmp_path / "data", episodes=5, length=6)
    for shard in root.glob("*/*.tfrecord-*"):
        rows = [tfrecord.parse_example(tfrecord.read_record(shard, at), "") for at in tfrecord.record_offsets(shard)]
        rows = [row | {"episode_metadata/episode_id": np.array([7])} for row in rows]
        rows[0]["steps/action"] = rows[0]["steps/action"][7 * torn :]
        tfrecord.write_records(shard, map(tfrecord.serialize_example, rows))
    with chat_server(lambda _: Reply()) as server:
        with pytest.raises(DataError, match=r"several episodes with file path '.*npy' and id '7'.*data convert"):
            annotate(_job(root, server.url), tmp_path / "out", Limits())
        assert server.requests == []


def test_of_an_episode_that_two_runs_have_written_the_last_record_counts(data, tmp_path):
    file = tmp_path / "annotations.jsonl"
    with chat_server(lambda _: Reply()) as server:
        annotate(_job(data, server.url), tmp_path, Limits())
        again = [line.replace("A lemon lies", "Here lies a lemon") for line in file.read_text().splitlines(True)]
        with file.open("a") as opened:
            opened.writelines(again)
        records = annotate(_job(data, server.url), tmp_path, Limits())
        assert len(server.requests) == 3
    assert [record.annotation.Caption[:4] for record in records] == ["Here"] * 3
    assert len(vla_it.read(tmp_path / "vla_it.json")) == 3


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("about.json", "{"),
        ("about.json", "[1]"),
        ("annotations.jsonl", '{"number": 0}\n'),
        ("annotations.jsonl", "no JSON\n"),
        ("failed.jsonl", "[]\n"),
        ("wasted.jsonl", '{"number": 0, "euros": 1}\n'),
    ],
)
def test_a_damaged_file_is_named_with_the_mend_and_stays_as_it_is(data, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    message = rf"{name}.* found .*expected.*remove it"
    with chat_server(lambda _: Reply()) as server, pytest.raises(DataError, match=message):
        annotate(_job(data, server.url), tmp_path, Limits())
    assert server.requests == [] and (tmp_path / name).read_text() == text


# ---- Ray ----------------------------------------------------------------------------------------------


class RayError(Exception):
    pass


class RayTaskError(RayError):
    cause = EndpointError("answers 401; check the API key")


@pytest.fixture
def ray(monkeypatch) -> SimpleNamespace:
    """A stand-in for Ray: ``init_fails`` and ``call_fails`` say with what."""
    fails = SimpleNamespace(init_fails=None, call_fails=None)

    def fail(error: Exception | None) -> None:
        if error is not None:
            raise error

    actor = SimpleNamespace(remote=lambda *_: None)
    pool = SimpleNamespace(
        submit=lambda *_: None, has_next=lambda: True, get_next_unordered=lambda: fail(fails.call_fails)
    )
    module, util = ModuleType("ray"), ModuleType("ray.util")
    module.exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)
    module.init, module.shutdown = lambda **_: fail(fails.init_fails), lambda: None
    module.remote = lambda _: SimpleNamespace(options=lambda **_: actor)
    util.ActorPool = lambda _: pool
    monkeypatch.setitem(sys.modules, "ray", module)
    monkeypatch.setitem(sys.modules, "ray.util", util)
    return fails


@pytest.mark.parametrize("error", [ConnectionError("none\nruns"), ValueError("none runs"), RuntimeError("none runs")])
def test_a_ray_cluster_that_is_not_there_is_named_with_the_mend(data, tmp_path, ray, error):
    ray.init_fails = error
    with pytest.raises(RunError, match=r"no Ray cluster at auto \(none runs\), .*--ray"):
        annotate(_job(data, NOBODY), tmp_path, Limits(), ray_address="auto")


def test_at_an_address_where_nobody_listens_ray_is_not_left_to_try(data, tmp_path, ray):
    with pytest.raises(RunError, match=r"no Ray cluster at 127.0.0.1:9 \(.*refused\), .*--ray"):
        annotate(_job(data, NOBODY), tmp_path, Limits(), ray_address="127.0.0.1:9")


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (RayTaskError("a traceback"), EndpointError, "^answers 401; check the API key$"),
        (RayError("the actor\ndied"), RunError, r"worker lost \(the actor died\).*what is done stays"),
    ],
)
def test_what_ends_a_ray_worker_reaches_the_user_as_a_clear_error(data, tmp_path, ray, error, kind, text):
    ray.call_fails = error
    with pytest.raises(kind, match=text):
        annotate(_job(data, NOBODY), tmp_path, Limits(), ray_address="local")


@pytest.mark.slow
def test_a_ray_cluster_annotates_with_the_same_command(data, tmp_path):
    pytest.importorskip("ray")
    with chat_server(lambda _: Reply()) as server:
        assert len(annotate(_job(data, server.url), tmp_path, Limits(workers=2), ray_address="local")) == 3


@pytest.mark.slow
def test_a_refusal_within_a_ray_cluster_is_the_same_clear_error(data, tmp_path):
    pytest.importorskip("ray")
    with chat_server(lambda _: Reply(status=401)) as server, pytest.raises(EndpointError, match=rf"^{server.url} ans"):
        annotate(_job(data, server.url), tmp_path, Limits(workers=1), ray_address="local")


@pytest.mark.slow
def test_a_ray_worker_without_a_key_is_the_same_clear_error(data, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(EndpointError, match=r"^found no API key"):
        annotate(_job(data, NOBODY), tmp_path, Limits(workers=1), ray_address="local")


@pytest.mark.slow
def test_a_ray_worker_that_is_killed_ends_the_run_with_a_clear_error(data, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(work, "_call", lambda actor, n: (ray.kill(actor), actor.annotate.remote(n))[1])
    with pytest.raises(RunError, match="worker lost"):
        annotate(_job(data, NOBODY), tmp_path, Limits(workers=1), ray_address="local")


@pytest.mark.slow
@pytest.mark.parametrize("address", ["auto", "no-address", "127.0.0.1:9"])
def test_a_genuine_ray_cluster_that_is_not_there_is_named(data, tmp_path, address):
    pytest.importorskip("ray")
    with pytest.raises(RunError, match=f"no Ray cluster at {address} "):
        annotate(_job(data, NOBODY), tmp_path, Limits(), ray_address=address)
