"""`python -m strongroom.cli`: the `strongroom` command where its script is not on the path."""

from strongroom.cli import main

if __name__ == "__main__":
    main()
