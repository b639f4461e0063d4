"""Whether this host can do what the configuration asks: facts read once, judged purely.

`read.read_facts` reads, `judge.preflight` judges.  `standing` is the cheap part of both, which
every start goes through; nothing is imported here, so that a start pays for that part alone.
"""
