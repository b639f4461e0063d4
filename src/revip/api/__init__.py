"""Surfaces for people and programs: pure renderings of one status snapshot."""
