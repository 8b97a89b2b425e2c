"""The search for the best adapter of a task of one's own, and whether TELL helped."""
