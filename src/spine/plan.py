"""`python -m spine.plan` is `spine plan`."""

from spine.commands.plan import main

if __name__ == "__main__":
    main()
