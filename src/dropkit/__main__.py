"""`python -m dropkit`: the command, where its script is not on the path."""

from dropkit.apps.cli import main

if __name__ == "__main__":
    main()
