"""Records of earlier versions: nested runs, all numbers among the metrics, the whole config as params."""

from __future__ import annotations

import json
from pathlib import Path

from ablations.tracking import recorder
from ablations.tracking.reader import Store
from ablations.tracking.runs_folder import check


def test_cells_that_an_earlier_version_nested_are_read(runs: Path):
    folder = check(runs)
    recorder.create(folder, "tiny")
    client = recorder.open_client(folder)
    experiment = client.get_experiment_by_name("tiny").experiment_id
    parent = client.create_run(experiment, tags={"kind": "parent", "profile": "smoke", "world_hash": "w"})
    client.log_param(parent.info.run_id, "arms", "rrpo")
    client.log_param(parent.info.run_id, "seeds", "1")
    names = {"arm": "rrpo", "seed": "1", "cell_hash": "h", "arm_hash": "a", "world_hash": "w", "profile": "smoke"}
    tags = {"kind": "cell", "complete": "h", "mlflow.parentRunId": parent.info.run_id} | names
    run = client.create_run(experiment, tags=tags).info.run_id
    for name, value in {"rm_ece": 0.1, "end_test_accuracy": 0.7, "policy/loss": 3.0}.items():
        client.log_metric(run, name, value)
    client.log_param(run, "arm.reward", '"hard_ce"')
    client.log_text(run, json.dumps({"arm.reward": '"hard_ce"'}), "config.json")
    for run_id in (parent.info.run_id, run):
        client.set_terminated(run_id)
    store = Store(folder)
    (record,) = store.records("tiny")
    assert (record.label, record.seed, record.run_id) == ("rrpo", 1, run)
    assert dict(record.scalars) == {"rm_ece": 0.1, "end_test_accuracy": 0.7}
    assert record.config == {"arm.reward": '"hard_ce"'}
    assert [plan.plan for plan in store.plans("tiny")] == [{"rrpo": (1,)}]
    assert store.grids() == ["other", "tiny"]
