"""`ftsys run-glue`: the flags of the well-known example script run_glue.py, run by this project's own training.

`flags` reads them, `translate` makes a run file of them, `look` finds out what an own file holds, `outcome` and
`stock_files` leave what the script leaves.
"""
