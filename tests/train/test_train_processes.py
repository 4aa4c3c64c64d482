"""Several processes: who is joined, and by what; that they train as one is tested in tests/reliability."""

import sys

import jax
import pytest

from cljax import train
from cljax.train import processes

SLURM = {"SLURM_STEP_NODELIST": "node[1-2]", "SLURM_NTASKS": "2"}
OMPI = {"OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:1", "OMPI_COMM_WORLD_SIZE": "2"}
HERE = {"TPU_SKIP_MDS_QUERY": "1"}  # nobody looks for the chips of the machine that runs this test


@pytest.mark.parametrize(
    "environment, launched",
    [
        (HERE, False),
        (SLURM, True),
        (SLURM | {"SLURM_NTASKS": "1"}, False),
        (HERE | {"SLURM_NTASKS": "2"}, False),  # in a batch script, without srun
        (OMPI, True),
        (OMPI | {"OMPI_COMM_WORLD_SIZE": "1"}, False),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),  # a notebook's machine
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_PROCESS_ADDRESSES": "a:1,b:1"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_COORDINATOR_ADDRESS": "b"}, True),
    ],
)
def test_a_launcher_of_several_processes_is_seen(environment, launched):
    assert processes._is_launched(environment) == launched


@pytest.mark.parametrize("vendors, launched", [(["0x8086\n", "0x1ae0\n"], True), (["0x8086\n"], False), ([], False)])
def test_a_machine_with_tpus_asks_who_else_there_is(tmp_path, monkeypatch, vendors, launched):
    for number, vendor in enumerate(vendors):
        (tmp_path / str(number)).write_text(vendor)
    monkeypatch.setattr(processes, "_vendors", tmp_path.iterdir)
    assert processes._is_launched({}) == launched


@pytest.mark.parametrize("arguments, environment, joined", [((), HERE, False), ((), SLURM, True), (("localhost:1", 2, 0), HERE, True)])
def test_processes_are_joined_with_a_time_out_of_their_signs_of_life(monkeypatch, arguments, environment, joined):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: calls.append(options))
    monkeypatch.setattr(processes.os, "environ", environment)
    monkeypatch.setattr(processes.sys, "excepthook", hook := sys.excepthook)
    assert train.join(*arguments) == joined
    names = ("coordinator_address", "num_processes", "process_id")
    given = dict(zip(names, arguments or (None, None, None), strict=True))
    assert calls == ([given | {"heartbeat_timeout_seconds": 30}] if joined else [])
    assert (processes.sys.excepthook is not hook) == joined
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    assert train.join(*arguments) and len(calls) == joined  # not twice


def test_an_exception_ends_one_of_several_at_once(monkeypatch, capsys):
    left, error = [], OSError("no space")
    monkeypatch.setattr(processes.os, "_exit", left.append)
    processes._end(sys.__excepthook__, OSError, error, None)
    assert left == [] and "OSError: no space" in capsys.readouterr().err  # alone it ends as it would
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    processes._end(sys.__excepthook__, OSError, error, None)
    processes._end(sys.__excepthook__, KeyboardInterrupt, KeyboardInterrupt(), None)
    assert left == [1, 130]


@pytest.mark.errors
def test_what_cannot_be_is_named():
    with pytest.raises(ValueError, match="seconds must be"):
        train.join(seconds=0)
    with pytest.raises(TypeError, match="seconds must be"):
        train.join(seconds=1.5)
    with pytest.raises((RuntimeError, ValueError)):  # something was computed here already
        jax.numpy.zeros(1)
        train.join("localhost:1", 2, 0)
