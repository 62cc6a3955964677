"""Ranks that hold shares of a batch: what they compute together is what one process computes alone."""

import os
import sys
import threading
import traceback
from types import SimpleNamespace

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.nn import functional as F

from hsfusion.data.patches import PatchDataModule, share_of
from hsfusion.data.splits import random
from hsfusion.data.synthetic import synthetic_scene
from hsfusion.errors import DivergedError, EnvironmentFailure
from hsfusion.runs.experiment import initialise
from hsfusion.runs.settings import TrainSettings, even_groups
from hsfusion.training import callbacks
from hsfusion.training.callbacks import ending_together
from hsfusion.training.classifier import FusionClassifier, whole_batch

pytestmark = pytest.mark.posix


def in_ranks(ranks, action, folder):
    """What an action, of a trainer, gives in each of so many forked processes."""
    children = []
    for rank in range(ranks):
        if number := os.fork():
            children.append(number)
            continue
        try:
            store = dist.FileStore(str(folder / f"store-{ranks}"), ranks)
            dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
            torch.save(action(), folder / f"{ranks}-{rank}")
            dist.barrier()
        except Exception:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(0)
    for number in children:
        os.waitpid(number, 0)
    return [torch.load(folder / f"{ranks}-{rank}") for rank in range(ranks)]


class Place:
    """What a trainer says of its process."""

    def __init__(self):
        self.global_rank, self.world_size = dist.get_rank(), dist.get_world_size()


def trained():
    """Weights after 12 steps on batches of 32 from classes that weigh differently, with gates, dropout and noise.

    In float64, for AdamW makes whole steps of gradients that are nearly 0.
    """
    model = {"channels": 4, "width": 8, "receptive_field": 3}
    settings = TrainSettings(groups=even_groups(3), model=model)
    experiment = initialise(random(synthetic_scene(seed=0, height=20, width=20), radius=1, seed=0), settings)
    module = FusionClassifier(
        experiment.network,
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-3),
        total_steps=20,
        seed=0,
        class_weights=[0.5, 1.0, 2.0, 1.5, 1.0, 1.0][: experiment.network.cnn.classifier.out_channels],
    )
    module.double()
    data = PatchDataModule(experiment.cube, experiment.split, seed=0, batch_size=32, range_dropout=0.5)
    optimizer = module.configure_optimizers()["optimizer"]
    losses = []
    for step in range(12):
        torch.manual_seed(step)
        patches, classes = data.gathered(step, data.sampler().batch(step), share=share_of(Place()))
        loss = module._loss(patches.double(), classes)[0]
        optimizer.zero_grad()
        loss.backward()
        for parameter in filter(lambda parameter: parameter.requires_grad, module.parameters()):  # as DDP does
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()
        optimizer.step()
        losses.append(loss.detach())
    patches, classes = data.gathered(
        -1, data.sampler().batch(0)[:2], share=share_of(Place())
    )  # no pixel for the fourth rank
    module.eval()
    with torch.no_grad():
        losses.append(module._loss(patches.double(), classes)[0])
    return {"losses": torch.stack(losses), **module.state_dict()}


def test_ranks_train_what_one_process_trains(tmp_path):
    (alone,) = in_ranks(1, trained, tmp_path)
    for state in in_ranks(3, trained, tmp_path):
        torch.testing.assert_close(state, alone, rtol=0, atol=1e-8)


def drawn():
    torch.manual_seed(1)
    norm, x = nn.BatchNorm2d(3), torch.randn(5, 3, 4, 4).to(memory_format=torch.channels_last)
    norm.weight.data.uniform_()
    share = share_of(Place())
    x = x[share]
    with whole_batch(x):
        parts = [norm(x), torch.randn(len(x), 2), torch.randn(9)[:1].expand(len(x))]
        parts += [dropout(x, 0.4) for dropout in (F.dropout, F.dropout2d)] + [F.dropout2d(x, 0.4, False)]
    return {"share": [part.clone() for part in parts], "running": norm.state_dict()}


@pytest.mark.parametrize("ranks", [2, 3])
def test_each_rank_draws_and_normalises_its_share_of_the_whole(ranks, tmp_path):
    (alone,) = in_ranks(1, drawn, tmp_path)
    states = in_ranks(ranks, drawn, tmp_path)
    for rank, state in enumerate(states):
        torch.testing.assert_close(state["running"], alone["running"])
        for part, whole in zip(state["share"], alone["share"], strict=True):
            torch.testing.assert_close(part, whole[rank::ranks])


@pytest.fixture
def further(monkeypatch):
    """Makes further processes that ended with these codes; None for those that go on until they are killed."""

    class Process:
        def __init__(self, code):
            self.code = code

        def poll(self):
            return self.code

        def kill(self):
            self.code = -9 if self.code is None else self.code

    def ended(*codes):
        processes = [Process(code) for code in codes]
        monkeypatch.setattr(callbacks, "_further", processes)
        monkeypatch.setattr(callbacks, "_GRACE", 1.0)
        monkeypatch.setattr(callbacks.subprocess_script, "_launch_process_observer", None)
        return processes, SimpleNamespace(local_rank=0, global_rank=0, world_size=1 + len(codes), strategy=None)

    return ended


@pytest.mark.parametrize(
    ("codes", "line"),
    [
        ((None, -9), "rank 2 of 3 was ended by SIGKILL, expected to train to the end. Fix: see train.log"),
        ((3, None), "rank 1 of 3 ended with exit code 3, expected"),
        ((None, None), r"rank 0 of 3 failed \(RuntimeError: Connection closed by peer\)"),
    ],
)
def test_rank_that_is_lost_is_named_and_the_others_are_ended(further, codes, line):
    processes, trainer = further(*codes)
    with pytest.raises(EnvironmentFailure, match=line), ending_together(trainer):
        raise RuntimeError("Connection closed by peer")
    assert None not in [process.code for process in processes]


def test_failure_that_all_ranks_share_keeps_its_words_and_one_process_its_error(further):
    _, trainer = further(4, None)
    with pytest.raises(DivergedError, match="loss is nan"), ending_together(trainer):
        raise DivergedError("loss is nan")
    with pytest.raises(RuntimeError, match="mine"), ending_together(further()[1]):
        raise RuntimeError("mine")


def test_process_that_waits_for_a_lost_rank_ends_with_one_line(further, monkeypatch):
    _, trainer = further(-9)
    monkeypatch.setattr(callbacks, "_GRACE", 0.1)
    written, ended = [], threading.Event()
    monkeypatch.setattr(os, "write", lambda stream, line: written.append((stream, line.decode())))
    monkeypatch.setattr(os, "_exit", lambda code: written.append(code) or ended.set())
    with ending_together(trainer):
        assert ended.wait(30)
    (stream, line), code = written[:2]
    assert line.startswith("hsfusion: error: training: rank 1 of 2 was ended by SIGKILL")
    assert (stream, code) == (2, 3)
