"""`python -m spine.profile` is `spine profile`."""

from spine.commands.profile import main

if __name__ == "__main__":
    main()
