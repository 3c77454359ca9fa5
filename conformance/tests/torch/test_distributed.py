"""DDP, FSDP2 and distributed checkpoints in two and in four processes; one start of them for all checks of a number."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch.distributed import checkpoint as dcp

from conformance.tests.torch.distributed_checks import Net, checks_of

SCRIPT = Path(__file__).with_name("distributed_checks.py")
Run = Callable[[int], tuple[Path, list[dict[str, str]]]]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """By number of processes: what each rank answered to each check. Two ranks save what four load."""
    folder = tmp_path_factory.mktemp("distributed")

    @cache
    def run(world: int) -> tuple[Path, list[dict[str, str]]]:
        if world == 4:
            run(2)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        command = [sys.executable, str(SCRIPT), str(folder)]
        ranks = [
            subprocess.Popen([*command, str(rank), str(world)], env=environment, stderr=subprocess.DEVNULL)
            for rank in range(world)
        ]
        try:
            for rank in ranks:
                rank.wait(timeout=1200)
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()
        return folder, [json.loads((folder / f"{world}-{rank}.json").read_text()) for rank in range(world)]

    return run


@pytest.mark.parametrize(("world", "name"), [(world, name) for world in (2, 4) for name in checks_of(world)])
def test_every_rank_agrees_with_one_process(answers: Run, world: int, name: str) -> None:
    assert [rank.get(name, "not reached") for rank in answers(world)[1]] == [""] * world


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_one_process_loads_what_two_saved(answers: Run) -> None:
    folder, _ = answers(2)
    net, want = Net(), Net()
    want.set_integers(7)
    state = net.state_dict()
    dcp.load(state, checkpoint_id=folder / "dcp", no_dist=True)
    net.load_state_dict(state)
    for name, tensor in want.state_dict().items():
        assert torch.equal(net.state_dict()[name], tensor), name
