"""No golden case passes by unseen: a test claims it, or it stands here among those that wait for their plug-in."""

import re
from pathlib import Path

import pytest

from tests.golden.cases import cases, fits

CLAIM = re.compile(r"claimed\(\s*\"(\w+)\",([^()]*)\)")
WAITING = {
    "models": "hubert s2t_* wav2vec2",
    "criterions": "",
    "optimizers": "",
    "lr_schedulers": "",
    "training": "",
    "data": "",
    "generation": "",
    "scoring": "",
    "checkpoints": "",
}


def patterns(kind: str) -> list[list[str]]:
    """Each claim that a test makes on a kind."""
    text = "".join(path.read_text() for path in sorted(Path(__file__).parents[1].rglob("test_*.py")))
    return [re.findall(r"\"([^\"]+)\"", rest) for name, rest in CLAIM.findall(text) if name == kind]


@pytest.mark.parametrize("kind", WAITING)
def test_kind(kind: str) -> None:
    for parameter in cases(kind):
        case = parameter.values[0]
        if case is None:
            pytest.skip("no golden files here")
        claims = sum(fits(case, claim) for claim in patterns(kind))
        waits = fits(case, WAITING[kind].split())
        assert claims or waits, f"{kind}/{case.name}: no test claims this golden case"
        assert not (claims and waits), f"{kind}/{case.name}: is claimed, so it waits no longer"
