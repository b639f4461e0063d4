"""The verbs: decisions as pure functions of state, event and time.  No I/O may enter."""
