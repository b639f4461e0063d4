"""The nouns: frozen, slotted, comparable values.  No behaviour beyond what they are called."""
