"""``python -m flows``: the command line, by the interpreter that is named."""

from flows.cli import main

raise SystemExit(main())
