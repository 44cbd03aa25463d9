"""`scorer=server` against a server of the test's own: the numbers, what is asked, and every fault told in one line."""

import json
from functools import partial

import numpy as np
import pytest
import torch

from metashot.base.errors import ConfigError, ModelError
from metashot.engine.generation.request import GREEDY, Generated, GenerationRequest, Sampling, Stopping
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.models.sources import TinyModel
from metashot.engine.scoring.makers import scorer_identity, server_scorer
from metashot.engine.scoring.request import Request

from .toy_server import Behaviour, served

VOCABULARY = 500
LOGITS = np.random.default_rng(0).normal(size=(VOCABULARY, VOCABULARY))
REQUESTS = [
    Request((5, 6, 7), (8, 9)),
    Request((5, 6, 7), (10,)),
    Request((), (3, 4, 5)),
    Request((1,), ()),
    Request((2, 2, 2, 2), (11, 12, 13, 14)),
]


def bigram(ids):
    """A language model whose next token depends on the last one and on how many there were."""
    row = LOGITS[ids[-1]] + 0.1 * len(ids)
    row[len(ids)] += 1.0
    return row - np.log(np.exp(row).sum())


def alone(request):
    ids = request.context + request.target
    return [bigram(ids[:i])[ids[i]] for i in range(len(ids) - request.scored, len(ids))]


@pytest.fixture(scope="module")
def model():
    return LazyLanguageModel(TinyModel(name="tiny"))


def behaviour(*faults, **fields):
    return Behaviour(
        lambda ids: np.stack([bigram(ids[: i + 1]) for i in range(len(ids))]), faults=set(faults), **fields
    )


@pytest.mark.parametrize("way", ["auto", "steps", "echo"])
def test_the_scores_are_those_of_each_request_alone(model, way):
    with served(behaviour()) as url:
        scores = server_scorer(model, url=url, way=way).score(REQUESTS)
    for request, score in zip(REQUESTS, scores, strict=True):
        assert score.dtype == torch.float32
        assert score.tolist() == pytest.approx(alone(request), abs=1e-5)


def test_progress_ends_at_all_tokens(model):
    seen = []
    with served(behaviour()) as url:
        server_scorer(model, url=url).score(REQUESTS, lambda done, total: seen.append((done, total)))
    total = sum(request.length for request in REQUESTS if request.scored)
    assert seen[-1] == (total, total)


def test_a_server_without_steps_is_asked_by_echo(model):
    with served(behaviour("steps are unknown")) as url:
        scorer = server_scorer(model, url=url)
        assert scorer.route == "server:echo"
        assert scorer.score(REQUESTS[:1])[0].tolist() == pytest.approx(alone(REQUESTS[0]), abs=1e-5)


def test_many_different_ids_are_asked_for_in_several_calls(model):
    requests = [Request((5, 6, 7), (token,)) for token in range(300)]
    told = behaviour()
    with served(told) as url:
        scores = server_scorer(model, url=url, way="steps").score(requests)
    assert [float(score[0]) for score in scores] == pytest.approx(list(bigram((5, 6, 7))[:300]), abs=1e-5)
    assert max(len(call.get("logprob_token_ids", ())) for call in told.calls) <= 128


def test_every_call_asks_for_plain_sampling(model):
    told = behaviour()
    with served(told) as url:
        server_scorer(model, url=url).score(REQUESTS)
    for call in told.calls:
        assert (call["temperature"], call["top_p"], call["top_k"], call["repetition_penalty"]) == (0, 1, 0, 1)
        assert all(isinstance(token, int) for ids in call["prompt"] for token in ids)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_refusal_that_passes_is_asked_again(model, status):
    told = behaviour()
    with served(told) as url:
        scorer = server_scorer(model, url=url)
        told.refusals[:] = [status]
        assert scorer.score(REQUESTS[:1])[0].tolist() == pytest.approx(alone(REQUESTS[0]), abs=1e-5)


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_refusal_for_good_is_told_at_once(model, status):
    told = behaviour()
    with served(told) as url:
        scorer = server_scorer(model, url=url, concurrency=1)
        told.refusals[:] = [status]
        before = len(told.calls)
        with pytest.raises(ModelError, match=f"refuses \\({status}\\).*not now"):
            scorer.score(REQUESTS[:1])
        assert len(told.calls) == before + 1


@pytest.mark.parametrize(
    ("fault", "way", "words"),
    [
        ("tokenizes anew", "auto", "it tokenizes anew"),
        ("no log-probabilities", "auto", "gives no log-probabilities"),
        ("shifted by one", "echo", "for a token that it writes with"),
        ("fewer values", "echo", "for a token that it writes with|values for"),
        ("not finite", "echo", "as a log-probability"),
        ("steps are unknown", "steps", "does not tell the log-probability of given ids"),
    ],
)
def test_what_a_server_cannot_do_is_told_at_the_start(model, fault, way, words):
    with served(behaviour(fault)) as url, pytest.raises(ModelError, match=words):
        server_scorer(model, url=url, way=way)


def greedy(ids, length):
    new = []
    while len(new) < length and 1 not in new:
        new.append(int(bigram((*ids, *new)).argmax()))
    return new


def test_answers_are_the_most_probable_tokens_cut_at_a_stop_string(model):
    prompts = [(5, 6, 7), (5, 6), (9,), (5, 6, 7), *((n,) for n in range(20, 60))]
    told, seen = behaviour(), []
    with served(told) as url:
        found = server_scorer(model, url=url).generate(
            [GenerationRequest(ids, seed) for seed, ids in enumerate(prompts)], Stopping(6, ("e",)), GREEDY,
            lambda done, total: seen.append((done, total)),
        )  # fmt: skip
    for ids, answer in zip(prompts, found, strict=True):
        text = model.tokenizer.decode(greedy(ids, 6), skip_special_tokens=True)
        assert answer == Generated(text.split("e")[0], len(greedy(ids, 6)))
    assert seen[-1] == (43, 43)  # the one that stands twice is asked for once
    calls = [call for call in told.calls if call["max_tokens"] == 6]
    assert {(call["temperature"], *call["stop"]) for call in calls} == {(0, "e")}


def test_a_sample_depends_on_its_own_seed_alone(model):
    requests = [GenerationRequest((5, 6, 7), seed) for seed in range(6)]
    with served(behaviour()) as url:
        scorer = server_scorer(model, url=url)
        found = scorer.generate(requests, Stopping(5), Sampling(temperature=1.0))
        again = scorer.generate(requests[::-1], Stopping(5), Sampling(temperature=1.0))
    assert found == again[::-1]
    assert len(set(found)) > 1


def test_a_server_that_tells_no_ids_of_what_it_writes_gives_its_text(model):
    with served(behaviour("ids are not told")) as url:
        (found,) = server_scorer(model, url=url).generate([GenerationRequest((5,))], Stopping(3))
    assert found.text == "text of 3"


@pytest.mark.parametrize(("ids", "words"), [((), "has no token"), ((2,) * 60, "is over the engine's 64")])
def test_a_prompt_without_room_for_an_answer_is_refused(model, ids, words):
    with served(behaviour()) as url, pytest.raises(ConfigError, match=words):
        server_scorer(model, url=url).generate([GenerationRequest(ids)], Stopping(5))


def test_an_answer_that_lacks_a_prompt_is_refused(model):
    told = behaviour()
    with served(told) as url:
        scorer = server_scorer(model, url=url)
        told.faults.add("a choice is missing")
        with pytest.raises(ModelError, match="answers to"):
            scorer.score(REQUESTS)


def test_a_server_that_dies_is_one_line(model):
    told = behaviour()
    with served(told) as url:
        scorer = server_scorer(model, url=url, retries=0)
        told.answers_left = 1
        with pytest.raises(ModelError, match=r"does not answer.*what is finished is kept"):
            scorer.score(REQUESTS * 2)


def test_a_server_that_is_not_there_is_one_line(model):
    with pytest.raises(ModelError, match="does not answer"):
        server_scorer(model, url="http://127.0.0.1:9/v1", retries=0)


def test_another_model_behind_the_address_is_named(model):
    with served(behaviour()) as url, pytest.raises(ModelError, match="serves toy, not 'other'"):
        server_scorer(model, url=url, served="other")


@pytest.mark.parametrize(("way", "most"), [("steps", 64), ("echo", 63)])
def test_a_request_is_held_to_what_the_server_takes(model, way, most):
    with served(behaviour()) as url:
        scorer = server_scorer(model, url=url, way=way)
        scorer.score([Request((1,) * (most - 1), (2,))])
        with pytest.raises(ConfigError, match=f"has {most + 1} tokens, and the server takes {most}"):
            scorer.score([Request((1,) * most, (2,))])


def test_the_key_comes_from_the_environment_alone(model, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret-of-mine")
    told = behaviour()
    with served(told) as url:
        server_scorer(model, url=url)
    assert set(told.keys) == {"Bearer a-secret-of-mine"}
    assert "a-secret-of-mine" not in json.dumps(told.calls)


def test_what_is_served_and_its_version_are_part_of_the_identity_and_the_address_is_not():
    def identity(told, **changes):
        with served(told) as url:
            return scorer_identity(partial(server_scorer, url=url, **changes))

    one = identity(behaviour())
    assert one == identity(behaviour(), concurrency=1, retries=1)
    assert one != identity(behaviour(name="other"))
    assert one != identity(behaviour(version="2"))
    assert one != identity(behaviour(), way="echo")
