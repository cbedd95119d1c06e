"""``python -m zephyr``: the command line."""

from zephyr.cli import main

if __name__ == "__main__":
    main()
