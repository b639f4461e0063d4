"""The loop that joins planner and ports; knows no adapter."""
