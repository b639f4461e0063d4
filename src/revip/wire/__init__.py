"""Bytes to values and back; pure.  No socket may enter."""
