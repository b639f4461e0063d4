"""The stories: one module per theme, each named after what it shows."""
