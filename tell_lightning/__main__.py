"""`python -m tell_lightning`."""

from tell_lightning.cli import main

if __name__ == "__main__":
    main()
