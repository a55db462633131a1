"""Writing after a prompt: the memory changes nothing, seeds repeat, and bounds are kept."""

import pytest
import torch

from tasks.engines.builtin.model import GPT, Memory
from tasks.engines.builtin.writing import Sampling, write
from tasks.errors import InputError
from tasks.records.scaling import ModelShape
from tests.small import random_model

GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
def model() -> GPT:
    return random_model(ModelShape.of_depth(3, 256, "SSL", 300))


def tokens(count: int) -> list[int]:
    return torch.randint(300, (count,), generator=torch.Generator().manual_seed(3)).tolist()


@torch.inference_mode()
def test_reading_on_is_reading_all_at_once(model: GPT) -> None:
    text, memory = torch.tensor([tokens(200)]), Memory()
    pieces = [model.trunk(piece, memory) for piece in text.split([1, 126, 1, 1, 1, 70], dim=1)]
    torch.testing.assert_close(model.head(torch.cat(pieces, 1)), model(text), rtol=1e-5, atol=1e-5)
    assert memory.length == 200


@torch.inference_mode()
def test_the_likeliest_token_is_that_of_the_whole_text(model: GPT) -> None:
    prompt = tokens(120)
    written = list(write(model, prompt, 12, GREEDY, 0, end=-1, banned=[]))
    for place, token in enumerate(written):
        assert token == int(model(torch.tensor([prompt + written[:place]]))[0, -1].argmax())
    banned = list(write(model, prompt, 12, GREEDY, 0, end=-1, banned=written))
    assert not set(banned) & set(written)
    end = written[3]
    assert list(write(model, prompt, 12, GREEDY, 0, end=end, banned=[])) == written[: written.index(end)]


def test_seeds_repeat_and_differ(model: GPT) -> None:
    drawn = [list(write(model, tokens(5), 20, Sampling(1.0), seed, -1, [])) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    for cold in (Sampling(1.0, top_k=1), Sampling(1.0, top_p=1e-6), Sampling(1e-3)):
        assert list(write(model, tokens(5), 6, cold, 7, -1, [])) == list(write(model, tokens(5), 6, GREEDY, 0, -1, []))


def test_draws_follow_the_probabilities_that_are_left() -> None:
    logits, generator = torch.tensor([0.4, 0.1, 0.3, 0.2]).log(), torch.Generator().manual_seed(0)

    def shares(sampling: Sampling) -> list[float]:
        drawn = torch.tensor([sampling.draw(logits, generator) for _ in range(4000)])
        return (torch.bincount(drawn, minlength=4) / 4000).tolist()

    assert shares(Sampling(1.0)) == pytest.approx([0.4, 0.1, 0.3, 0.2], abs=0.04)
    assert shares(Sampling(1.0, top_k=2)) == pytest.approx([4 / 7, 0, 3 / 7, 0], abs=0.04)
    assert shares(Sampling(1.0, top_p=0.75)) == pytest.approx([4 / 9, 0, 3 / 9, 2 / 9], abs=0.04)
    assert shares(Sampling(0.5))[0] == pytest.approx(16 / 30, abs=0.04)


def test_what_is_too_long_or_out_of_bounds_is_named(model: GPT) -> None:
    with pytest.raises(InputError, match=r"200 tokens of prompt.* and 57 to write are more than the 256 .* at most 56"):
        write(model, tokens(200), 57, GREEDY, 0, -1, [])
    for field, value in (("temperature", -0.1), ("temperature", 11), ("top_k", 0), ("top_p", 0), ("top_p", 1.5)):
        with pytest.raises(InputError, match=f"{field} is {value:g}: give"):
            Sampling(**{field: value})
