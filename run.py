"""The entry point in a checkout: `python run.py method=channel k=16 'seeds=[100,13]'`."""

from metashot.stages.command import main

if __name__ == "__main__":
    main()
