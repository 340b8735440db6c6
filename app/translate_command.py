"""`python -m app.translate_command "fairseq-train ..."`: the line of ours that does the same, on standard output."""

import argparse
import shlex
import sys

from app.cli import store_schema, told


def main() -> None:
    """What has no equivalent is named on standard error. Exits with 2 for what is no command or flag of fairseq's."""
    parser = argparse.ArgumentParser(prog="python -m app.translate_command", description=__doc__, allow_abbrev=False)
    parser.add_argument("--table", action="store_true", help="print where every flag went, as Markdown")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="fairseq-train ..., in quotes or as it is")
    args = parser.parse_args()
    if not args.table and not args.command:
        parser.error('give a command of fairseq\'s, such as "fairseq-train data-bin --arch transformer ..."')
    with told("translate_command"):
        from app.fairseq.commands import as_markdown, translate

        if args.table:
            print(as_markdown(), end="")
            return
        store_schema("train")
        line = args.command[0] if len(args.command) == 1 else shlex.join(args.command)
        translated = translate(line)
        for note in translated.notes():
            print(note, file=sys.stderr)
        print(translated.line)


if __name__ == "__main__":
    main()
