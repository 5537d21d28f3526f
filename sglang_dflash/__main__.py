"""``python -m sglang_dflash``: the console command."""

from sglang_dflash.cli import main

if __name__ == "__main__":
    main()
