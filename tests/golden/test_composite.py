"""The real fairseq's composite optimizer and its pass-through scheduler; and what is ours about them."""

import ast
import json
from typing import Any

import pytest
import torch
from torch import nn

from app.compatibility import optimizer_faults, scheduler_faults
from app.errors import ConfigError
from app.lr_schedulers.pass_through import PassThrough, PassThroughConfig
from app.optimizers.composite import Composite, CompositeConfig, GroupConfig
from app.plugins import configure
from app.runtime.state import pack, unpack
from app.schema import typed
from tests.golden.cases import claimed


def optimizer_node(given: dict[str, Any]) -> dict[str, Any]:
    (lr,) = given["lr"]
    if given["_name"] != "adam":
        target = {"nag": "app.optimizers.nag.NAG", "sgd": "torch.optim.SGD"}[given["_name"]]
        return {"_target_": target, "lr": lr, **{name: given[name] for name in ("momentum", "weight_decay")}}
    betas = given["adam_betas"]
    return {
        "_target_": "app.optimizers.adam.Adam",
        "lr": lr,
        "betas": list(ast.literal_eval(betas) if isinstance(betas, str) else betas),
        "eps": given["adam_eps"],
        "weight_decay": given["weight_decay"],
    }


TARGETS = {
    "fixed": "app.lr_schedulers.fixed.Fixed",
    "inverse_sqrt": "app.lr_schedulers.inverse_sqrt.InverseSquareRoot",
    "polynomial_decay": "app.lr_schedulers.polynomial_decay.PolynomialDecay",
}


def scheduler_node(given: dict[str, Any]) -> dict[str, Any]:
    node = {**given, "_target_": TARGETS[given["_name"]]}
    if node.pop("_name") != "fixed":
        node.pop("lr")
    if node.get("warmup_init_lr", 0.0) < 0:  # fairseq's -1
        node["warmup_init_lr"] = 0.0
    if "total_num_update" in node:
        node["total_num_update"] = int(node["total_num_update"])
        assert node.pop("force_anneal") is None
    return node


def group_node(group: dict[str, Any], params: list[str] | None) -> dict[str, Any]:
    parts = {
        "optimizer": optimizer_node(group["optimizer"]),
        "lr_scheduler": scheduler_node(group["lr_scheduler"]),
    }
    return {"params": params, "dims": None, **parts}


def made(groups: dict[str, Any], named: dict[str, nn.Parameter]) -> Composite:
    node = {"_target_": "app.optimizers.composite.Composite", "groups": groups}
    ours: Composite = configure(node, "torch.optim.Optimizer", "optimizer")(list(named.items()))
    return ours


@pytest.mark.parametrize("case", claimed("optimizers", "composite"))
@pytest.mark.parametrize("resumed_after", [0, 5])
def test_composite(case: Any, resumed_after: int) -> None:
    config, before = case.spec["optimizer_config"], case.under("before")
    named = {name: nn.Parameter(before[name].clone()) for name in case.spec["order_of_parameters"]}
    owned = {key: [name for name, owner in config["param_groups"].items() if owner == key] for key in config["groups"]}
    groups = {key: group_node(group, owned[key]) for key, group in config["groups"].items()}
    ours = made(groups, named)
    schedule = PassThrough(PassThroughConfig(), ours)
    for step, rates in enumerate(case.spec["lr_used"], start=1):
        if step == resumed_after:  # everything goes on from what a checkpoint would hold
            tensors: dict[str, torch.Tensor] = {}
            saved = json.loads(json.dumps(pack([ours.state_dict(), schedule.state_dict()], tensors)))
            states = unpack(saved, {name: tensor.clone() for name, tensor in tensors.items()})
            ours = made(groups, named)
            schedule = PassThrough(PassThroughConfig(), ours)
            ours.load_state_dict(states[0])
            schedule.load_state_dict(states[1])
            schedule.step_update(step - 1)
        assert [group["lr"] for group in ours.param_groups] == pytest.approx(list(rates.values()), rel=1e-9)
        for name, p in named.items():
            p.grad = case.tensors[f"grad/{step:02d}/{name}"].clone()
        ours.step()
        schedule.step_update(step)
        for name, p in named.items():
            torch.testing.assert_close(p.data, case.tensors[f"after/{step:02d}/{name}"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", claimed("lr_schedulers", "pass_through"))
def test_pass_through(case: Any) -> None:
    named = {name: nn.Parameter(torch.zeros(1)) for name in case.spec["groups"]}
    ours = made({name: group_node(group, [name]) for name, group in case.spec["groups"].items()}, named)
    schedule = PassThrough(PassThroughConfig(), ours)
    expected = {n: rates for n, rates in case.spec["lr_after_update"] if n}
    for n in range(1, max(expected) + 1):
        schedule.step_update(n)
        if n in expected:
            rates = {name: group["lr"] for name, group in zip(ours.optimizers, ours.param_groups, strict=True)}
            assert rates == pytest.approx({name: expected[n][name] for name in rates}, rel=1e-9, abs=1e-15), n
        if n % case.spec["updates_per_epoch"] == 0:
            schedule.step(n // case.spec["updates_per_epoch"], None)


SGD = {"_target_": "torch.optim.SGD", "lr": 0.1}
FLAT = {"_target_": TARGETS["inverse_sqrt"], "warmup_updates": 0, "warmup_init_lr": 0.0}


def group(params: list[str] | None, dims: int | None = None) -> GroupConfig:
    return GroupConfig(params, dims, SGD, FLAT)


NAMED = [
    ("layers.0.weight", nn.Parameter(torch.zeros(2, 2))),
    ("layers.0.bias", nn.Parameter(torch.zeros(2))),
    ("embed.weight", nn.Parameter(torch.zeros(2, 2))),
]


def test_groups_are_shared_out_by_name_and_dimensions_whatever_their_order() -> None:
    groups = {"rest": group(None), "matrices": group(["layers.*"], dims=2)}
    for order in (groups, dict(reversed(groups.items()))):
        ours = Composite(CompositeConfig(order), NAMED)
        assert ours.optimizers["matrices"].param_groups[0]["param_names"] == ["layers.0.weight"]
        assert ours.optimizers["rest"].param_groups[0]["param_names"] == ["layers.0.bias", "embed.weight"]


@pytest.mark.parametrize(
    ("groups", "faults"),
    [
        ({"one": group(["layers.*"])}, ["embed.weight is taken by none"]),
        (
            {"one": group(["*"]), "two": group(["embed*"])},
            ["embed.weight is taken by one and two", "groups.two.params"],
        ),
        ({"one": group(None), "two": group(["decoder.*"])}, ["groups.two.params: no parameter fits"]),
    ],
)
def test_every_parameter_belongs_to_one_group(groups: dict[str, GroupConfig], faults: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Composite(CompositeConfig(groups), NAMED)
    assert len(caught.value.faults) == len(faults)
    assert all(fault in told for fault, told in zip(faults, caught.value.faults, strict=True))


def test_faults_inside_groups_are_told_with_their_place() -> None:
    bad = {**vars(group(None)), "optimizer": {**SGD, "lr": -1.0}, "lr_scheduler": {**FLAT, "warmup_updates": -1}}
    worse = {**vars(group(None)), "optimizer": {**SGD, "rate": 1.0}}
    with pytest.raises(ConfigError) as caught:
        typed(CompositeConfig, {"groups": {"bad": bad, "worse": worse}}, "optimizer")
    text = "\n".join(caught.value.faults)
    assert "params=null in bad and worse" in text
    assert "optimizer.groups.bad.lr_scheduler.warmup_updates=-1" in text
    assert "optimizer.groups.worse.optimizer.rate: no such key" in text


def test_a_scheduler_for_all_and_groups_with_their_own_do_not_go_together() -> None:
    passing = configure({"_target_": "app.lr_schedulers.pass_through.PassThrough"}, "app.interfaces.LRScheduler")
    single = configure(FLAT, "app.interfaces.LRScheduler")
    composite = CompositeConfig({"rest": group(None)})
    assert list(scheduler_faults(composite, passing)) == list(scheduler_faults(None, single)) == []
    assert "lr_scheduler=pass_through" in next(scheduler_faults(composite, single))
    assert "choose another" in next(scheduler_faults(None, passing))


def test_muon_is_made_for_a_check() -> None:
    node = {"_target_": "torch.optim.Muon", "lr": 0.1}
    assert not list(optimizer_faults(configure(node, "torch.optim.Optimizer")))
    refused = list(optimizer_faults(configure({**node, "lr": -1.0}, "torch.optim.Optimizer")))
    assert len(refused) == 1
    assert refused[0].startswith("optimizer: ")
