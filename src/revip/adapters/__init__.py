"""One outside thing each: thin, typed, and never importing each other."""
