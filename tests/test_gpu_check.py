import csv
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


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
    assert {row["mode"] for row in rows["loss_gpu"]} == {"forward", "backward", "both"}
