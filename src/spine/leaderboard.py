"""`python -m spine.leaderboard` is `spine leaderboard`."""

from spine.commands.leaderboard import main

if __name__ == "__main__":
    main()
