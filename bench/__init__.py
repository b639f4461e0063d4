"""The benchmark: revip beside keepalived, on one kernel, one network, under the same faults.

`rows` is what is measured, `subjects` who is measured, `world` where, `cases` how; `guest` runs
the cases in the lab's kernel, `cli` boots it and `report` writes what came of it.
"""
