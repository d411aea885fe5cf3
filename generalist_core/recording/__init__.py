"""Steps and attacks recorded on a GPU and replayed, and the numbers that replays read anew."""
