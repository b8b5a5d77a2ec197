"""The leaderboard: all runs in some folders, ranked, as a table, a CSV file and an HTML page."""
