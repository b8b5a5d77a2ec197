"""`python -m spine.report` is `spine report`."""

from spine.commands.report import main

if __name__ == "__main__":
    main()
