"""`python -m imgcls` and `torchrun -m imgcls`: the same as the `imgcls` command."""


def main() -> None:
    """Run the command line."""
    from imgcls.cli.app import app
    from imgcls.machine import keep_freed_memory

    keep_freed_memory()
    app(prog_name="imgcls")


if __name__ == "__main__":
    main()
