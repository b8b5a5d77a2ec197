"""`python -m spine.embed` is `spine embed`."""

from spine.commands.embed import main

if __name__ == "__main__":
    main()
