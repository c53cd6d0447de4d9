"""`python -m retain`: the command line, where the script `retain` is not on the path."""

from retain.faces.cli import main

if __name__ == "__main__":
    main()
