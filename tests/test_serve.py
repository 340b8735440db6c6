"""The HTTP interface, with a stand-in for the model; and once with a trained one."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")

from starlette.testclient import TestClient

from app import train as train_command
from app.errors import DataError
from app.inference import load_generator
from app.interfaces import Translation
from app.roots import ServeConfig
from app.serve import most_translations, with_details
from app.serving.application import PAGE, application
from app.serving.batcher import Batcher, Full
from tests.runs import configured, train, write_corpus


class Shouting:
    """Translates by capitals, n best times; a line of more than five words is too long. `go` holds it back."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go = threading.Event()
        self.go.set()

    def generate(self, lines: list[str]) -> list[list[Translation]]:
        self.batches.append(lines)
        self.go.wait(5)
        if "fail" in lines:
            raise RuntimeError("out of order")
        return [[Translation(line.upper(), [line], -n, [-n], [line]) for n in range(3)] for line in lines]

    def too_long(self, lines: list[str]) -> list[int]:
        return [number for number, line in enumerate(lines) if len(line.split()) > 5]


def config(**changes) -> ServeConfig:
    given = {"search": None, "precision": None, "checkpoint": "run", "max_tokens": 4096, "device": "cpu"}
    given |= {"num_threads": 1, "engine": "torch", "lang_pair": None, "long_lines": "error", "host": "127.0.0.1"}
    given |= {"port": 8000, "timeout": 5.0, "max_lines": 4, "max_body_bytes": 500, "max_batch_lines": 8}
    return ServeConfig(**{**given, "max_queue_lines": 4, "max_connections": 8, "details": True, **changes})


@pytest.fixture
def model() -> Shouting:
    return Shouting()


@pytest.fixture
def client(model: Shouting) -> Iterator[TestClient]:
    with TestClient(application(config(), model, model.generate, 3)) as client:
        yield client


def test_lines_are_answered_in_order_with_the_n_best(client: TestClient) -> None:
    response = client.post("/translate", json={"lines": ["a b", "c"], "nbest": 2})
    assert response.status_code == 200
    answer = response.json()["translations"]
    assert [[each["text"] for each in best] for best in answer] == [["A B", "A B"], ["C", "C"]]
    assert set(answer[0][0]) == {"text", "pieces", "score", "positional_scores", "source_pieces"}


@pytest.mark.parametrize(
    ("body", "status", "fault"),
    [
        ("{", 400, "not JSON"),
        ("[" * 400, 400, "not JSON"),
        ("[]", 422, "give an object"),
        ('{"lines": ["a"], "path": "/etc/passwd"}', 422, "nothing else"),
        ('{"lines": "a"}', 422, "list of texts"),
        ('{"lines": [1]}', 422, "list of texts"),
        ('{"lines": ["a\\nb"]}', 422, "without line breaks"),
        ('{"lines": ["a\\ud800"]}', 422, "surrogate"),
        ('{"lines": []}', 422, "1 to 4, not 0"),
        ('{"lines": ["a", "a", "a", "a", "a"]}', 422, "1 to 4, not 5"),
        ('{"lines": ["a"], "nbest": true}', 422, "nbest"),
        ('{"lines": ["a"], "nbest": 0}', 422, "nbest"),
        ('{"lines": ["a"], "nbest": 4}', 422, "nbest: must be a whole number, 1 to 3"),
        ('{"lines": ["a", "a b c d e f"]}', 422, "lines[1]: longer than the model allows"),
        (json.dumps({"lines": ["a" * 600]}), 413, "longer than 500 bytes"),
    ],
)
def test_bad_requests_are_told_what_is_wrong(client: TestClient, body: str, status: int, fault: str) -> None:
    response = client.post("/translate", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status
    assert fault in response.json()["error"]


def test_other_methods_types_and_places_are_refused(client: TestClient) -> None:
    assert client.get("/translate").status_code == 405
    assert client.post("/translate", content=b"lines=a").status_code == 415
    assert client.get("/../etc/passwd").status_code == 404
    assert client.get("/nothing").json() == {"error": "Not Found"}


def test_health_and_metrics(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok", "queued_lines": 0}
    client.post("/translate", json={"lines": ["a", "b"]})
    client.post("/translate", json={})
    lines = client.get("/metrics").text.splitlines()
    assert {'requests_total{status="200"} 1.0', 'requests_total{status="422"} 1.0'} <= set(lines)
    assert {"batch_lines_sum 2.0", "queued_lines 0.0", "request_seconds_count 2.0"} <= set(lines)


def test_the_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    response = client.get("/")
    assert response.text == PAGE.read_text().replace("MAX_NBEST", "3")
    assert "://" not in response.text
    assert "default-src 'none'" in response.headers["content-security-policy"]


def test_a_failed_batch_is_told_and_the_next_one_is_translated(client: TestClient) -> None:
    assert client.post("/translate", json={"lines": ["fail"]}).status_code == 500
    assert client.post("/translate", json={"lines": ["a"]}).status_code == 200


def test_an_answer_that_takes_too_long_is_given_up(model: Shouting) -> None:
    model.go.clear()
    with TestClient(application(config(timeout=0.1), model, model.generate, 3)) as client:
        response = client.post("/translate", json={"lines": ["a"]})
        assert (response.status_code, "no answer within 0.1 seconds" in response.json()["error"]) == (503, True)
        model.go.set()
        assert client.post("/translate", json={"lines": ["b"]}).status_code == 200


def test_what_waits_is_translated_together_and_a_full_queue_refuses(model: Shouting) -> None:
    async def scene() -> list[object]:
        batcher = Batcher(model.generate, max_batch_lines=3, max_queue_lines=4)
        running = asyncio.create_task(batcher.run())
        model.go.clear()
        requests = [asyncio.create_task(batcher.submit(["a"], 5))]
        while not model.batches:
            await asyncio.sleep(0.01)
        gone = asyncio.create_task(batcher.submit(["gone"], 0.01))
        requests += [asyncio.create_task(batcher.submit(lines, 5)) for lines in (["b"], ["c", "d"])]
        await asyncio.sleep(0.1)
        with pytest.raises(TimeoutError):
            await gone
        with pytest.raises(Full):
            await batcher.submit(["e"], 5)
        model.go.set()
        found = await asyncio.gather(*requests)
        running.cancel()
        return [[best[0].text for best in each] for each in found]

    assert asyncio.run(scene()) == [["A"], ["B"], ["C", "D"]]
    assert model.batches == [["a"], ["b", "c", "d"]]


def test_one_bad_request_does_not_fail_those_beside_it(model: Shouting) -> None:
    async def scene() -> list[object]:
        batcher = Batcher(model.generate, max_batch_lines=3, max_queue_lines=4)
        requests = [asyncio.create_task(batcher.submit([line], 5)) for line in ("a", "fail", "b")]
        await asyncio.sleep(0)
        running = asyncio.create_task(batcher.run())
        found = await asyncio.gather(*requests, return_exceptions=True)
        running.cancel()
        return [str(each) if isinstance(each, Exception) else each[0][0].text for each in found]  # type: ignore[index]

    assert asyncio.run(scene()) == ["A", "out of order", "B"]
    assert model.batches == [["a", "fail", "b"], ["a"], ["fail"], ["b"]]


def test_a_line_that_cannot_be_split_is_the_clients_fault(model: Shouting) -> None:
    def translate(lines: list[str]) -> list[list[Translation]]:
        raise DataError("one word and too long for the model")

    with TestClient(application(config(), model, translate, 3)) as client:
        response = client.post("/translate", json={"lines": ["a"]})
    assert (response.status_code, response.json()) == (422, {"error": "one word and too long for the model"})


def served_by(run_dir: Path, *overrides: str) -> TestClient:
    """A client of what `app.serve` makes of a run, without sockets."""
    cfg, plugins = configured([f"checkpoint={run_dir}", "num_threads=1", *overrides], "serve")
    search = with_details(plugins["search"], cfg.engine)
    generator = load_generator(cfg, {**plugins, "search": search})[1]
    return TestClient(application(cfg, generator, generator.generate, most_translations(search)))


def test_a_trained_model_is_served_with_its_attention(tmp_path: Path) -> None:
    run_dir = train(tmp_path, "trainer.max_update=20", "trainer.validate_interval=0")
    with served_by(run_dir, "search.max_len_b=9") as client:
        (best,) = client.post("/translate", json={"lines": ["ba be"], "nbest": 5}).json()["translations"]
        assert len(best) == 5
        for each in best:
            assert len(each["attention"]) == len(each["pieces"])
            assert all(len(row) == 3 and sum(row) == pytest.approx(1, abs=1e-4) for row in each["attention"])
        assert client.post("/translate", json={"lines": ["ba " * 70]}).status_code == 422
        assert client.post("/translate", json={"lines": ["ba be"], "nbest": 6}).status_code == 422


SIZES = [f"model.decoder_{name}" for name in ("layers=1", "embed_dim=32", "ffn_embed_dim=32", "attention_heads=2")]
BOTH = [*SIZES, "model.encoder_layers=1", "model.encoder_embed_dim=32", "model.encoder_attention_heads=2"]
PAIR = ["task.source_lang=xx", "task.target_lang=yy", "task.joined_dictionary=true"]
DRAFTS = ["task=translation_lev", "criterion=nat_loss", *PAIR, *BOTH, "search=iterative_refinement"]
WAYS = ["task=multilingual_translation", "task.lang_pairs=[xx-yy,yy-xx]", "task.encoder_langtok=tgt"]
TEXT = ["task=language_modeling", "criterion=cross_entropy", "task.lang=xx", "task.tokens_per_sample=32", *SIZES]


@pytest.mark.parametrize(
    ("trained", "served"),
    [
        ([*DRAFTS, "model=cmlm_transformer", "task.noise=random_mask"], ["search=iterative_refinement"]),
        ([*DRAFTS, "model=levenshtein_transformer"], ["search=iterative_refinement"]),
        ([*WAYS, *BOTH, "model=transformer_tiny"], ["lang_pair=yy-xx", "search.max_len_b=9"]),
        ([*TEXT, "model=transformer_lm"], ["search.max_len_b=9"]),
    ],
    ids=["cmlm", "levenshtein", "multilingual", "language model"],
)
def test_runs_of_other_tasks_are_served(tmp_path: Path, trained: list[str], served: list[str]) -> None:
    places = [f"task.data={write_corpus(tmp_path / 'text')}", f"cache_dir={tmp_path / 'cache'}", "tokenizer=word"]
    limits = ["trainer.max_update=3", "trainer.validate_interval=0", "trainer.num_threads=1", "precision=fp32"]
    train_command.run(*configured([*trained, *places, *limits, f"run_dir={tmp_path / 'run'}", "task.num_workers=1"]))
    with served_by(tmp_path / "run", *served) as client:
        answers = [client.post("/translate", json={"lines": lines}) for lines in (["ba be", "", "zzz"], ["ba be"])]
    three, one = (answer.json()["translations"] for answer in answers)
    assert [len(best) for best in (*three, *one)] == [1, 1, 1, 1]
    assert three[0][0]["text"] == one[0][0]["text"]


@pytest.mark.parametrize(
    ("overrides", "most", "attention"),
    [
        ([], 5, True),
        (["search.beam=3"], 3, True),
        (["search=greedy"], 1, True),
        (["search=mbr"], 32, True),
        (["search=iterative_refinement"], 1, None),
        (["engine=ctranslate2"], 5, False),
        (["details=false"], 1, False),
        (["details=false", "search.nbest=2", "search.print_alignment=true"], 2, True),
    ],
)
def test_the_search_finds_what_the_page_shows_where_it_can(
    tmp_path: Path, overrides: list[str], most: int, attention: bool | None
) -> None:
    cfg, plugins = configured([f"checkpoint={tmp_path}", *overrides], "serve")
    search = with_details(plugins["search"], cfg.engine) if cfg.details else plugins["search"]
    assert most_translations(search) == most
    assert getattr(search.args[0], "print_alignment", None) == attention
