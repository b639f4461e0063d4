"""`python -m revip` is the same as the console script `revip`."""

from revip.cli.main import main

raise SystemExit(main())
