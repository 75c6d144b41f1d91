"""A run that trains nothing, in a second: `python tests/fake_trial.py RUN.toml --output_dir DIR --KEY VALUE`.

It has evaluations, results and exit statuses as `ftsys train` has them, and goes on after a stop. The accuracy rises
with every evaluation, to a value that is highest at a learning rate of 1e-3. `--trainer.logging_steps N` of 13 fails,
and of 77 is refused as a run in the folder of another one is.
"""

import json
import math
import signal
import sys
import time
from pathlib import Path
from types import FrameType

EVALUATIONS, SECONDS = 4, 0.25


def stop(number: int, frame: FrameType | None) -> None:
    """Leave as a run does that has saved."""
    sys.exit(75)


def main(words: list[str]) -> int:
    """Write what a run writes."""
    options = dict(zip(words[1::2], words[2::2], strict=True))
    folder = Path(options["--output_dir"])
    folder.mkdir(exist_ok=True)
    (folder / "starts").open("a").write("started\n")
    if options.get("--trainer.logging_steps") == "13":
        return 2
    if options.get("--trainer.logging_steps") == "77":
        print("error: the folder belongs to another run:\nits seed is 1.", file=sys.stderr)
        return 77
    rate = float(options["--train.learning_rate"])
    log = folder / "metrics.jsonl"
    done = len(log.read_text().splitlines()) if log.exists() else 0
    accuracy = 0.0
    for number in range(1, EVALUATIONS + 1):
        accuracy = (1 - 0.2 * abs(math.log10(rate / 1e-3))) * number / EVALUATIONS
        if number > done:
            time.sleep(SECONDS)
            line = {"step": number, "epoch": number, "time": 0.0, "attempt": 1, "split": "validation"}
            with log.open("a") as stream:
                stream.write(json.dumps(line | {"accuracy": accuracy, "f1": 0.5, "loss": 1 - accuracy}) + "\n")
    results = {"task": "paraphrase", "metrics": {"validation": {"accuracy": accuracy, "f1": 0.5, "loss": 1 - accuracy}}}
    (folder / "results.json").write_text(json.dumps(results))
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    sys.exit(main(sys.argv[1:]))
