"""`python -m spine.pack` is `spine pack`."""

from spine.commands.pack import main

if __name__ == "__main__":
    main()
