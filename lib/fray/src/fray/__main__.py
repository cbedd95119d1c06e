"""``python -m fray``: the command line."""

from fray.cli import main

if __name__ == "__main__":
    main()
