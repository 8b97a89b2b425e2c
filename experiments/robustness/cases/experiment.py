"""Cases about the commands that many lines of the list share."""
