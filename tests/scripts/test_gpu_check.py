import csv
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_gpu_check_runs_to_its_end_on_a_cpu(tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / "gpu_check.py"
    done = subprocess.run(
        [sys.executable, str(script), "--rehearse", "--output", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {
        file.stem: list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
        for file in tmp_path.iterdir()
    }
    assert all(row["passed"] == "True" for row in rows["gpu_gradient_error"])
    assert {row["arm"] for row in rows["training_gpu"]} == {
        "ce_plain",
        "ce_fused",
        "slack_ctc_fused",
    }
    assert [row["provider"] for row in rows["decode_gpu"]][:2] == ["published", "exact"]
    assert {row["mode"] for row in rows["loss_gpu"]} == {"forward", "backward", "both"}


def test_parts_run_alone_and_the_failed_ones_are_named(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$*"\n[ "$3" != loss ]\n', encoding="utf-8")
    python.chmod(0o755)
    script = str(ROOT / "benchmarks" / "gpu_check.sh")
    done = subprocess.run(
        ["sh", script, "out", "lattice", "loss", "recipes"],
        env={**os.environ, "PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "benchmarks/gpu_check.py --part lattice --output out",
        "benchmarks/gpu_check.py --part loss --output out",
        "benchmarks/gpu_recipes.py --output out",
    ]
    assert done.stderr == "failed or too slow: loss\n"
