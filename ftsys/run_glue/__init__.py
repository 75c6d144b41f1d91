"""Runs the flags of transformers' example script run_glue.py with this project's training (`ftsys run-glue`).

`flags` parses them, `translate` turns them into a run file, `infer_task` finds the columns and labels of a user's own
data, `results` collects the metrics, and `result_files` writes the files that the script writes.
"""
